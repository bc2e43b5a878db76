// Drives backtrace-node, the older SDK that many applications still ship. See README.md for what goes in and out.
'use strict';

const { BacktraceClient } = require('backtrace-node');
const { errorOf, serve, target } = require('./reports.cjs');

// The SDK has no constant for it in its interface: status 4 means that the server took the report.
const STATUS_OK = 4;

const { url, token } = target();
const client = new BacktraceClient({ endpoint: url, token, disableGlobalHandler: true, enableMetricsSupport: false });

serve(async ({ kind, text, classifier, attributes, attachments }) => {
    const data = kind === 'message' ? text : errorOf({ text, classifier });
    const result = await client.reportAsync(data, attributes, attachments);
    return result.Status === STATUS_OK ? { ok: true, rxid: result._rxId } : { ok: false, detail: result.Message };
});
