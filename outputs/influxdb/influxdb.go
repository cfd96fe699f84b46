// Package influxdb is the output influxdb: points as line protocol to the write
// API of InfluxDB 1.x, 2.x or 3.x, or of a server that speaks one of them.
package influxdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

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
		Why:      "The pid is a tag of custom_port_exporter: a series for each process that ever listened. Leave that point to Prometheus.",
	},
	Telegraf: plugin.Telegraf{
		Names: []string{"influxdb_v2"},
		Options: map[string]string{
			"bucket_tag":           "leave it out: write an [[outputs.influxdb]] for each bucket, with tagpass",
			"database_tag":         "leave it out: write an [[outputs.influxdb]] for each database, with tagpass",
			"exclude_bucket_tag":   "write tagexclude",
			"exclude_database_tag": "write tagexclude",
			"http_proxy":           "leave it out: HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment are followed",
			"retention_policy_tag": "leave it out: write an [[outputs.influxdb]] for each retention policy, with tagpass",
			"udp_payload":          "leave it out: points are sent over HTTP",
			"user_agent":           "leave it out: it cannot be set",
			"write_consistency":    "leave it out: it cannot be set",
		},
	},
})

// New returns the output of one instance.
func New(o Options, env plugin.Env) (plugin.Pusher, error) {
	out := &output{options: o, log: env.Log, client: client{options: o}, secret: newSecret(&o, env.Log)}
	for _, s := range o.URLs {
		u, err := parseURL(s)
		if err != nil {
			return nil, err
		}
		out.servers = append(out.servers, server{
			name:  u.Scheme + "://" + u.Host,
			url:   writeURL(u, &o),
			plain: u.Scheme == "http" && !isLoopback(u.Hostname()),
		})
	}
	return out, nil
}

type output struct {
	options Options
	log     *slog.Logger
	encoder format.LineProtocol
	servers []server
	last    int // index of the server that worked last
	client  client
	secret  secret
	warned  bool         // that the secret travels in the clear
	gzip    *gzip.Writer // nil until the first request
	lines   []byte       // what it compressed last, for use again
}

// A server is one of the URLs.
type server struct {
	name  string // for messages
	url   string // to write to
	plain bool   // others can read on the way what is sent
}

// writeURL returns the URL that points are posted to.
func writeURL(base *url.URL, o *Options) string {
	q := url.Values{}
	var u *url.URL
	switch o.api() {
	case "v1":
		u = base.JoinPath("write")
		q.Set("db", o.Database)
		if o.RetentionPolicy != "" {
			q.Set("rp", o.RetentionPolicy)
		}
		q.Set("precision", "ns")
	case "v2":
		u = base.JoinPath("api/v2/write")
		q.Set("org", o.Organization)
		q.Set("bucket", o.Bucket)
		q.Set("precision", "ns")
	default:
		u = base.JoinPath("api/v3/write_lp")
		q.Set("db", o.Database)
		q.Set("precision", "nanosecond")
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// MaxBytes bounds what one request carries.
func (o *output) MaxBytes() int { return int(o.options.MaxBody) }

// Encode appends the point as one line of line protocol, without its newline.
func (o *output) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	return o.encoder.Append(dst, p)
}

// Push posts records to the server that worked last. Where that server fails, the
// others are tried in turn; where it has a mind of its own about the records, its
// answer counts.
func (o *output) Push(ctx context.Context, records [][]byte) error {
	body, err := o.compress(records)
	if err != nil {
		return err
	}
	login, err := o.login()
	if err != nil {
		return err
	}
	if err := o.client.refresh(); err != nil {
		return err
	}
	var failures []error
	for range o.servers {
		s := &o.servers[o.last]
		err := o.post(ctx, s, login, body, len(records), len(o.servers)-len(failures))
		if err == nil || errors.Is(err, plugin.ErrRejected) || errors.Is(err, plugin.ErrTooLarge) {
			return err
		}
		failures = append(failures, err)
		o.last = (o.last + 1) % len(o.servers)
	}
	return joinFailures(failures)
}

// compress returns the lines of the records, compressed where the options say so. It
// is not used twice: a request that is given up may be sent on for a while.
func (o *output) compress(records [][]byte) ([]byte, error) {
	if o.options.ContentEncoding != "gzip" {
		return appendLines(nil, records), nil
	}
	o.lines = appendLines(o.lines[:0], records) // gzip is faster on one large piece
	var body bytes.Buffer
	if o.gzip == nil {
		var err error
		if o.gzip, err = gzip.NewWriterLevel(&body, gzip.BestSpeed); err != nil {
			return nil, err
		}
	}
	o.gzip.Reset(&body)
	o.gzip.Write(o.lines) // an error stays until Close
	if err := o.gzip.Close(); err != nil {
		return nil, err
	}
	return body.Bytes(), nil
}

func appendLines(dst []byte, records [][]byte) []byte {
	for _, r := range records {
		dst = append(append(dst, r...), '\n')
	}
	return dst
}

// post sends the body to one server, which has its share of the time that is left
// for so many attempts.
func (o *output) post(ctx context.Context, s *server, login string, body []byte, records, attempts int) error {
	if deadline, ok := ctx.Deadline(); ok && attempts > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(attempts))
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	req.Header.Set("User-Agent", "sockwatch")
	if o.options.ContentEncoding == "gzip" {
		req.Header.Set("Content-Encoding", "gzip")
	}
	if login != "" {
		req.Header.Set("Authorization", login)
	}
	// What is written twice overwrites itself, so that net/http may send a request
	// again whose connection proves dead. The header itself is not sent.
	req.Header["Idempotency-Key"] = nil
	resp, err := o.client.http.Do(req)
	if err != nil {
		if uerr, ok := errors.AsType[*url.Error](err); ok {
			err = uerr.Err // without the URL, which says no more than the name
		}
		return fmt.Errorf("%s: %w", s.name, err)
	}
	defer resp.Body.Close()
	if err := o.judge(resp, records); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// joinFailures returns the failures of all servers as one. Where each of them said
// when to come back, the first of these times counts; else none does.
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
