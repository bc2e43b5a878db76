// Drives @backtrace/node. See README.md for what goes in and out.
'use strict';

const { BacktraceClient, BacktraceFileAttachment } = require('@backtrace/node');
const { errorOf, serve, target } = require('./reports.cjs');

const client = BacktraceClient.initialize({
    ...target(),
    // The SDK refuses to start without these two.
    userAttributes: { application: 'sdk-tests', 'application.version': '1.0.0' },
    metrics: { enable: false },
    breadcrumbs: { enable: false },
});

serve(async ({ kind, text, classifier, attributes, attachments }) => {
    const data = kind === 'message' ? text : errorOf({ text, classifier });
    const files = attachments.map((path) => new BacktraceFileAttachment(path));
    const result = await client.send(data, attributes, files);
    return result.status === 'Ok'
        ? { ok: true, rxid: result.result._rxid }
        : { ok: false, detail: [result.status, result.message].filter(Boolean).join(': ') };
});
