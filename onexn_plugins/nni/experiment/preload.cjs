// Loaded before NNI's server.
"use strict";
delete process.env.NODE_OPTIONS; // not for what the trials start

// It listens on all interfaces, without a password. Each of its servers gets the loopback address wherever NNI names
// none of its own: NNI's own parts find it there. What comes in on another address in ONEXN_LISTEN is passed on to it.
const net = require("net");
const loopback = "127.0.0.1";
const address = process.env.ONEXN_LISTEN;
const listen = net.Server.prototype.listen;
if (address) {
    net.Server.prototype.listen = function (...words) {
        const options = words[0];
        let port = null;
        if (typeof options === "number" || (typeof options === "string" && /^\d+$/.test(options))) {
            port = Number(options);
            if (typeof words[1] === "string") words[1] = loopback;
            else words.splice(1, words[1] === undefined && words.length > 1 ? 1 : 0, loopback);
        } else if (options !== null && typeof options === "object" && options.port !== undefined) {
            port = Number(options.port);
            words[0] = { ...options, host: loopback };
        }
        if (port && address !== loopback) {
            listen.call(net.createServer((socket) => this.emit("connection", socket)), port, address).unref();
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
