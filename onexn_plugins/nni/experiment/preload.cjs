// Loaded before NNI's server.
"use strict";
delete process.env.NODE_OPTIONS; // not for what the trials start

// It listens on all interfaces, without a password. Each of its servers gets the address in ONEXN_LISTEN wherever NNI
// names none of its own.
const net = require("net");
const address = process.env.ONEXN_LISTEN;
const listen = net.Server.prototype.listen;
if (address) {
    net.Server.prototype.listen = function (...words) {
        const options = words[0];
        if (typeof options === "number" || (typeof options === "string" && /^\d+$/.test(options))) {
            if (typeof words[1] === "string") words[1] = address;
            else words.splice(1, words[1] === undefined && words.length > 1 ? 1 : 0, address);
        } else if (options !== null && typeof options === "object" && options.port !== undefined) {
            words[0] = { ...options, host: address };
        }
        return listen.apply(this, words);
    };
}

// It gives its tuner ten seconds to connect, which a busy machine does not make: importing NNI may take a minute there.
const patience = 1000 * Number(process.env.ONEXN_TUNER_SECONDS);
const setTimer = globalThis.setTimeout;
const patient = (call, delay, ...words) => {
    const ofTuner = delay === 10000 && String(new Error().stack).includes("tuner_command_channel");
    return setTimer(call, ofTuner ? patience : delay, ...words);
};
if (patience) globalThis.setTimeout = Object.defineProperties(patient, Object.getOwnPropertyDescriptors(setTimer));
