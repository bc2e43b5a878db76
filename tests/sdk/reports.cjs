// The part both Node drivers share: one report a line in, one result a line out, in order, one at a time.
'use strict';

const readline = require('node:readline');

/** Where to submit: `url` alone holds the token already, or `url` and `token`. */
exports.target = function () {
    const [url, token] = process.argv.slice(2);
    if (!url) {
        throw new Error('usage: node driver.cjs URL [TOKEN]');
    }
    return { url, token };
};

/** An error whose name, which the SDKs turn into the classifier, is the one asked for. */
exports.errorOf = function (report) {
    const error = new Error(report.text);
    error.name = report.classifier ?? 'Error';
    return error;
};

/** Calls `send` with each report and prints the `{ok, rxid | detail}` that it resolves to. */
exports.serve = async function (send) {
    for await (const line of readline.createInterface({ input: process.stdin })) {
        const report = JSON.parse(line);
        const result = await send({ attributes: {}, attachments: [], ...report });
        process.stdout.write(JSON.stringify(result) + '\n');
    }
    // The SDKs keep timers and sockets open, which would hold the process.
    process.exit(0);
};
