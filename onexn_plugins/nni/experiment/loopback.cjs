// NNI's server listens on all interfaces, without a password. Loaded before it, this gives each of its
// servers the address in ONEXN_LISTEN wherever NNI names none of its own.
"use strict";
const net = require("net");
const address = process.env.ONEXN_LISTEN;
delete process.env.NODE_OPTIONS; // not for what the trials start
const listen = net.Server.prototype.listen;
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
