// Package influxdb is the output influxdb: points as line protocol to the write API of
// InfluxDB 1.x, 2.x or 3.x, or to a server that implements one of these APIs.
package influxdb

import (
	"context"
	"log/slog"
	"time"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/format"
	"sockwatch/outputs/internal/push"
)

// Plugin is the output influxdb.
var Plugin = plugin.DefinePush(plugin.Definition[Options, plugin.Pusher]{
	Name:          "influxdb",
	Defaults:      Defaults,
	Example:       Example,
	New:           New,
	FlushInterval: 10 * time.Second,
	Sample: plugin.Sample{
		NameDrop: []string{"custom_port_exporter"},
		Why:      "custom_port_exporter has the pid as a tag, so every process that listens makes a new series. Leave that point to Prometheus.",
	},
	Telegraf: plugin.Telegraf{
		Names: []string{"influxdb_v2"},
		Options: map[string]string{
			"bucket_tag":           "leave it out: write an [[outputs.influxdb]] for each bucket, with tagpass",
			"database_tag":         "leave it out: write an [[outputs.influxdb]] for each database, with tagpass",
			"exclude_bucket_tag":   "write tagexclude",
			"exclude_database_tag": "write tagexclude",
			"http_proxy":           "write http_proxy_url",
			"influx_uint_support":  "leave it out: all integers are written as signed integers",
			"retention_policy_tag": "leave it out: write an [[outputs.influxdb]] for each retention policy, with tagpass",
			"udp_payload":          "leave it out: points are sent over HTTP",
			"user_agent":           "set User-Agent in http_headers",
			"write_consistency":    "leave it out: it is not supported",
		},
	},
})

// New returns the output of one instance.
func New(o Options, env plugin.Env) (plugin.Pusher, error) {
	out := &output{
		options:    o,
		log:        env.Log,
		compressor: push.NewCompressor(o.ContentEncoding),
		databases:  make(databases),
	}
	out.classifier = classifier{options: o, databases: out.databases}
	config := push.Config{
		URLs: o.URLs, URLOption: "urls", Options: push.Options{Login: o.Login, Headers: o.HTTPHeaders, Transport: o.Transport},
		Text: message, Advice: out.classifier.advice, Log: env.Log,
	}
	if o.api() == "v2" {
		config.TokenScheme = "Token"
	}
	var err error
	out.client, err = push.New(config)
	out.classifier.client = out.client
	return out, err
}

type output struct {
	format.LineProtocol
	options    Options
	log        *slog.Logger
	compressor *push.Compressor
	client     *push.Client
	classifier classifier
	databases  databases
}

// MaxBytes limits the size of one request.
func (o *output) MaxBytes() int { return int(o.options.MaxBody) }

// Push posts records to the server that worked last, or to the next one if that fails. If
// the database is missing, it is created, and the records are posted again.
func (o *output) Push(ctx context.Context, records [][]byte) error {
	body, err := o.compressor.Join(records, push.Lines)
	if err != nil {
		return err
	}
	path, query := o.options.writeTarget()
	write := &push.Request{
		Path: path, Query: query, ContentType: "text/plain; charset=utf-8",
		ContentEncoding: o.compressor.Encoding(), Body: body, Records: len(records),
	}
	return o.client.Try(ctx, func(ctx context.Context, s *push.Server) error {
		resp, err := o.client.Post(ctx, s, write)
		if err == nil && o.mayCreateDatabase(s, resp) {
			if err = o.createDatabase(ctx, s); err == nil {
				resp, err = o.client.Post(ctx, s, write)
			}
		}
		if err != nil {
			return err
		}
		return o.classifier.classify(s, parseAnswer(resp), records)
	})
}

// Close closes the connections.
func (o *output) Close() error { return o.client.Close() }
