// Package http is the output http: points as JSON to any URL, for webhooks and log stores.
package http

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/format"
	"sockwatch/outputs/internal/push"
)

// Plugin is the output http.
var Plugin = plugin.DefinePush(plugin.Definition[Options, plugin.Pusher]{
	Name:          "http",
	Defaults:      Defaults,
	Example:       Example,
	New:           New,
	FlushInterval: time.Second,
	Sample: plugin.Sample{
		NamePass: []string{"tcp_listen_event", "tcp_listen_rule_event"},
		Why:      "A webhook should get changes, not a snapshot every ten seconds.",
	},
	Telegraf: plugin.Telegraf{Options: map[string]string{
		"audience":                       oauth,
		"aws_service":                    "leave it out: it is not supported",
		"bearer_token":                   "write token, or token_file",
		"client_id":                      oauth,
		"client_secret":                  oauth,
		"compression_level":              "leave it out: gzip and zstd always use their fastest level",
		"cookie_auth_url":                "leave it out: it is not supported; set username, token or headers",
		"data_format":                    `leave it out: points are JSON; see format`,
		"google_application_credentials": oauth,
		"idle_conn_timeout":              "leave it out: idle connections are closed after 90s",
		"json_nested_fields_include":     "leave it out: no field holds JSON",
		"json_timestamp_format":          `write timestamp_format = "rfc3339"`,
		"json_timestamp_units":           `write timestamp_format, such as "unix_ms"`,
		"json_transformation":            "leave it out: it is not supported",
		"max_idle_conn":                  "leave it out: there is one connection",
		"max_idle_conn_per_host":         "leave it out: there is one connection",
		"response_timeout":               "leave it out: timeout covers the whole request",
		"scopes":                         oauth,
		"tls_key_pwd":                    "leave it out: the key must not be encrypted",
		"token_url":                      oauth,
		"use_batch_format":               `write format = "json_object" for false, "json_lines" or "json_array" for true`,
		"use_system_proxy":               "leave it out: the proxy of the environment is used, unless NO_PROXY forbids it",
	}},
})

const oauth = "let a helper write the access token into token_file, which is read again for each request"

// New returns the output of one instance.
func New(o Options, env plugin.Env) (plugin.Pusher, error) {
	client, err := push.New(push.Config{
		URLs: o.URL, URLOption: "url", Options: o.Options, Advice: advice, Log: env.Log,
	})
	return &output{
		options: o, JSON: format.NewJSON(o.TimestampFormat), body: bodyOf(o.Format),
		compressor: push.NewCompressor(o.ContentEncoding), client: client,
	}, err
}

type output struct {
	*format.JSON
	options    Options
	body       body
	compressor *push.Compressor
	client     *push.Client
}

// A body is what the bodies of a format look like.
type body struct {
	framing     push.Framing
	contentType string
	single      bool // at most one record
}

// formats are the known values of format.
var formats = []string{"json_array", "json_lines", "json_object"}

// bodyOf returns the body of a known format.
func bodyOf(format string) body {
	switch format {
	case "json_array":
		return body{framing: push.JSONArray, contentType: "application/json"}
	case "json_object":
		return body{framing: push.Framing{Between: "\n"}, contentType: "application/json", single: true}
	default:
		return body{framing: push.Lines, contentType: "application/x-ndjson"}
	}
}

// MaxBytes limits the size of one request. The agent counts one byte more for each record,
// but an array has two brackets and one comma less. A limit that every record exceeds makes
// the agent push them one by one.
func (o *output) MaxBytes() int {
	if o.body.single {
		return 1
	}
	f := o.body.framing
	return max(1, int(o.options.MaxBody)-len(f.Before)-len(f.After)+len(f.Between))
}

// Push sends records in one request.
func (o *output) Push(ctx context.Context, records [][]byte) error {
	body, err := o.compressor.Join(records, o.body.framing)
	if err != nil {
		return err
	}
	request := &push.Request{
		Method: o.options.Method, ContentType: o.body.contentType, ContentEncoding: o.compressor.Encoding(), Body: body, Records: len(records),
	}
	return o.client.Push(ctx, request, func(s *push.Server, resp *push.Response) error {
		if slices.Contains(o.options.NonRetryableStatusCodes, resp.Status) {
			return plugin.RejectAll(len(records), errors.New(s.Name+": "+o.client.Describe(resp)))
		}
		return o.client.Classify(s, resp, len(records))
	})
}

// advice returns what to do about an answer, or "" for the general advice.
func advice(_ *push.Server, resp *push.Response) string {
	if resp.Status == http.StatusMethodNotAllowed {
		return "check url and method"
	}
	return ""
}

// Close closes the connection.
func (o *output) Close() error { return o.client.Close() }
