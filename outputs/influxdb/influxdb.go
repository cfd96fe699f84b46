// Package influxdb is the output influxdb: points as line protocol to the write API of
// InfluxDB 1.x, 2.x or 3.x, or to a server that implements one of these APIs.
package influxdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/format"
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
			"http_proxy":           "leave it out: HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment are used",
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
		body:       bodyEncoder{compressed: o.ContentEncoding == "gzip"},
		client:     newClient(&o, env.Log),
		classifier: classifier{options: o},
	}
	out.classifier.hide = out.client.credentials.hide
	for _, u := range o.URLs {
		s, err := newServer(u, &o)
		if err != nil {
			return nil, err
		}
		out.servers = append(out.servers, s)
	}
	return out, nil
}

type output struct {
	options    Options
	log        *slog.Logger
	encoder    format.LineProtocol
	body       bodyEncoder
	servers    []*server
	current    int // index of the server that worked last
	client     *client
	classifier classifier
}

// MaxBytes limits the size of one request.
func (o *output) MaxBytes() int { return int(o.options.MaxBody) }

// Encode appends the point as one line of line protocol, without its newline.
func (o *output) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	return o.encoder.Append(dst, p)
}

// Restamp appends a record with another time.
func (o *output) Restamp(dst, record []byte, t time.Time) ([]byte, error) {
	return o.encoder.Restamp(dst, record, t)
}

// Push posts records to the server that worked last. If that server fails, Push tries the
// others in turn. If an error is about the records themselves, it is final, and no other
// server is tried.
func (o *output) Push(ctx context.Context, records [][]byte) error {
	body, err := o.body.encode(records)
	if err != nil {
		return err
	}
	if err := o.client.refresh(ctx, o.servers); err != nil {
		return err
	}
	var failures []error
	for attempts := len(o.servers); attempts > 0; attempts-- {
		err := o.pushTo(ctx, o.servers[o.current], body, records, attempts)
		if err == nil || concernsRecords(err) {
			return err
		}
		failures = append(failures, err)
		o.current = (o.current + 1) % len(o.servers)
	}
	return joinFailures(failures)
}

// pushTo posts the body to one server. It takes at most an equal share of the time that is
// left for the remaining attempts. If the database is missing, it is created, and the body
// is posted again.
func (o *output) pushTo(ctx context.Context, s *server, body []byte, records [][]byte, attempts int) error {
	ctx, cancel := shareOfTime(ctx, attempts)
	defer cancel()
	write := request{url: s.writeURL, contentType: "text/plain; charset=utf-8", encoding: o.body.encoding(), body: body}
	a, err := o.client.post(ctx, s, write)
	if err == nil && o.mayCreateDatabase(s, &a) {
		if err = o.createDatabase(ctx, s); err == nil {
			a, err = o.client.post(ctx, s, write)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return o.classifier.classify(s, &a, records)
}

// mayCreateDatabase reports whether InfluxDB 1.x answered that the database is missing and
// has not been asked to create it before.
func (o *output) mayCreateDatabase(s *server, a *answer) bool {
	return o.options.api() == "v1" && !o.options.SkipDatabaseCreation && !s.creationAsked &&
		a.status == http.StatusNotFound && a.says("database not found")
}

// createDatabase asks a server, once, to create the database. A refusal is not an error
// here: the server's answer becomes part of the error of the write, which keeps the
// points.
func (o *output) createDatabase(ctx context.Context, s *server) error {
	a, err := o.client.post(ctx, s, s.createDatabase(o.options.Database))
	if err == nil && (a.status == http.StatusTooManyRequests || a.status >= 500) {
		err = errors.New(o.classifier.describe(&a)) // about the server's state, so it may be asked again
	}
	if err != nil {
		return fmt.Errorf("create database %q: %w", o.options.Database, err)
	}
	s.creationAsked = true
	if s.creationRefusal = o.classifier.refusal(&a); s.creationRefusal == "" {
		o.log.Info("database created", "database", o.options.Database, "url", s.name)
	}
	return nil
}

// Close closes the connections.
func (o *output) Close() error {
	o.client.close()
	return nil
}

// shareOfTime returns a context for one of the remaining attempts, which share the time
// that is left equally.
func shareOfTime(ctx context.Context, attempts int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || attempts == 1 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Until(deadline)/time.Duration(attempts))
}

// concernsRecords reports whether an error is about the records and not about the server.
func concernsRecords(err error) bool {
	_, rejected := errors.AsType[*plugin.RejectedError](err)
	return rejected || errors.Is(err, plugin.ErrRejected) || errors.Is(err, plugin.ErrTooLarge)
}

// joinFailures returns the failures of all servers as one error. If every server said
// when to retry, the shortest wait counts; otherwise the agent decides.
func joinFailures(failures []error) error {
	if len(failures) == 1 {
		return failures[0]
	}
	var texts []string
	var waits []time.Duration
	for _, err := range failures {
		texts = append(texts, err.Error())
		if after, ok := errors.AsType[*plugin.RetryAfterError](err); ok {
			waits = append(waits, after.Wait)
		}
	}
	err := errors.New(strings.Join(texts, "; "))
	if len(waits) == len(failures) {
		return &plugin.RetryAfterError{Wait: slices.Min(waits), Err: err}
	}
	return err
}
