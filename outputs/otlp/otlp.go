// Package otlp is the output otlp: points as metrics, and events as log records, over OTLP/HTTP
// with protobuf, to an OpenTelemetry Collector or any database that receives OTLP.
//
// otlp.go has the main path, point.go and event.go encode points and events as records,
// sentence.go writes the text of an event, request.go and metricsrequest.go make requests from
// records, signal.go sends the requests of one kind, response.go parses responses, and
// progress.go remembers what was stored when a Push fails in part.
package otlp

import (
	"context"
	"errors"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/promname"
	"sockwatch/outputs/internal/push"
)

// Plugin is the output otlp.
var Plugin = plugin.DefinePush(plugin.Definition[Options, plugin.Pusher]{
	Name:          "otlp",
	Defaults:      Defaults,
	Example:       Example,
	New:           New,
	FlushInterval: 10 * time.Second,
	MinInterval:   time.Minute,
	Sample: plugin.Sample{
		NameDrop: []string{"custom_port_exporter"},
		Why:      "custom_port_exporter has the pid as a tag, so every process that listens makes a new series. Leave that point to Prometheus.",
	},
	Telegraf: plugin.Telegraf{
		Names: []string{"opentelemetry"},
		Options: map[string]string{
			"attributes":       "write resource_attributes",
			"compression":      `write content_encoding = "gzip" or "identity"`,
			"coralogix":        "leave it out: write the private key as token, and application and subsystem as resource_attributes",
			"encoding_type":    "leave it out: requests are protobuf",
			"endpoint":         "write metrics_url, logs_url, or both",
			"proxy_url":        "write http_proxy_url: OTLP is sent over HTTP",
			"service_address":  `write metrics_url = "http://HOST:4318/v1/metrics": OTLP is sent over HTTP, not gRPC`,
			"url":              "write metrics_url, logs_url, or both",
			"urls":             "write metrics_url, logs_url, or both",
			"use_proxy":        "leave it out: HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment are used",
			"use_system_proxy": "leave it out: HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment are used",
		},
	},
})

// New returns the output of one instance.
func New(o Options, env plugin.Env) (plugin.Pusher, error) {
	resource, err := newResource(&o, env.Hostname)
	if err != nil {
		return nil, err
	}
	out := &output{
		events:   eventEncoder{hostname: env.Hostname},
		progress: progress{urls: map[byte]string{kindMetrics: o.MetricsURL, kindLogs: o.LogsURL}, log: env.Log},
	}
	out.twoServers = twoServers(o.MetricsURL, o.LogsURL)
	if env.StateDir != "" && o.MetricsURL != "" && o.LogsURL != "" {
		out.progress.path = filepath.Join(env.StateDir, env.Name+".stored")
	}
	points, err := newMetricsRequest(resource, &out.docs)
	if err != nil {
		return nil, err
	}
	if out.metrics, err = newSignal("metrics", "metrics_url", o.MetricsURL, &o, env.Log, points); err != nil {
		return nil, err
	}
	if out.logs, err = newSignal("logs", "logs_url", o.LogsURL, &o, env.Log, &logsRequest{resource: resource}); err != nil {
		return nil, err
	}
	return out, nil
}

type output struct {
	points        pointEncoder
	docs          promname.Docs
	events        eventEncoder
	metrics, logs *signal // nil if the URL is empty
	twoServers    bool    // the URLs have different hosts
	progress      progress
}

// window is how many bytes of records one Push takes. It is more than one request holds: as
// long as one of the two URLs fails, the other one gets what is in the window.
const window = 4 << 20

// MaxBytes limits the records in one Push.
func (*output) MaxBytes() int { return window }

// UseDescs gives the following points the types, units and descriptions of their metrics.
func (o *output) UseDescs(descs []metric.Desc) {
	o.points.use(descs)
	o.docs.Learn(descs)
}

// Encode appends a point as metrics, unless no metrics are sent or none of its fields is a
// number.
func (o *output) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	if o.metrics == nil {
		return dst, nil
	}
	return o.points.append(dst, p, recorded)
}

// Restamp appends a record of a point with another time.
func (o *output) Restamp(dst, record []byte, t time.Time) ([]byte, error) {
	return restamp(dst, record, t)
}

// EncodeEnded appends a record that ends the series of a point.
func (o *output) EncodeEnded(dst []byte, series *metric.Point, t time.Time) ([]byte, error) {
	if o.metrics == nil {
		return dst, nil
	}
	p := *series
	p.Time = t
	return o.points.append(dst, &p, ended)
}

// EncodeEvent appends an event as a log record, unless no logs are sent.
func (o *output) EncodeEvent(dst []byte, event *metric.Point) ([]byte, error) {
	if o.logs == nil {
		return dst, nil
	}
	return o.events.append(dst, event)
}

// Push sends metrics and logs, each kind to its URL, at the same time. If one kind fails,
// Push remembers what was stored and does not send it again in the next attempt.
func (o *output) Push(ctx context.Context, records [][]byte) error {
	results := o.progress.recall(records)
	var metrics, logs []int // indexes of the records to send
	for i, r := range records {
		switch {
		case results[i].done:
		case kindOf(r) == kindMetrics:
			metrics = append(metrics, i)
		case kindOf(r) == kindLogs:
			logs = append(logs, i)
		default:
			results[i] = rejectedFor(errUnknownRecord)
		}
	}
	metricsErr, logsErr := atOnce(
		func() error { return o.metrics.send(ctx, records, metrics, results) },
		func() error { return o.logs.send(ctx, records, logs, results) },
	)
	if err := o.failure(metricsErr, logsErr); err != nil {
		o.progress.remember(records, results)
		oneFailed := metricsErr == nil || logsErr == nil
		if o.twoServers && oneFailed || slices.ContainsFunc(results, func(r result) bool { return r.done }) {
			return &plugin.ProgressError{Err: err} // else the other server would get the oldest records only
		}
		return err
	}
	o.progress.forget(records)
	return o.rejection(results)
}

// twoServers reports whether two URLs have different hosts: one of them may fail alone.
func twoServers(metricsURL, logsURL string) bool {
	m, err := url.Parse(metricsURL)
	if err != nil || m.Host == "" {
		return false
	}
	l, err := url.Parse(logsURL)
	return err == nil && l.Host != "" && l.Host != m.Host
}

// atOnce calls two functions at the same time and returns their errors. If the second one
// panics, so does atOnce: the agent recovers the panics of Push, but not of goroutines.
func atOnce(first, second func() error) (firstErr, secondErr error) {
	var running sync.WaitGroup
	var panicked any
	running.Go(func() {
		defer func() { panicked = recover() }()
		secondErr = second()
	})
	func() {
		defer running.Wait()
		firstErr = first()
	}()
	if panicked != nil {
		panic(panicked)
	}
	return firstErr, secondErr
}

// failure returns the error of a Push in which a kind has failed. A temporary failure
// takes precedence over a request that has to be split, which can wait. One kind does not wait
// for as long as the server of the other asks for.
func (o *output) failure(metricsErr, logsErr error) error {
	err := errors.Join(metricsErr, logsErr)
	switch {
	case metricsErr == nil || logsErr == nil:
		if after, ok := errors.AsType[*plugin.RetryAfterError](err); ok && o.metrics != nil && o.logs != nil {
			return after.Err
		}
		return err
	case mustSplit(metricsErr) && mustSplit(logsErr):
		return err
	case mustSplit(metricsErr):
		return logsErr
	case mustSplit(logsErr):
		return metricsErr
	default:
		return push.JoinFailures(metricsErr, logsErr)
	}
}

// mustSplit reports whether fewer records may succeed at once.
func mustSplit(err error) bool {
	return errors.Is(err, plugin.ErrTooLarge) || errors.Is(err, plugin.ErrRejected)
}

// rejection returns the error of a Push in which every record was stored or rejected, or nil
// if all were stored.
func (o *output) rejection(results []result) error {
	rejected := &plugin.RejectedError{Records: map[int]error{}, OthersStored: true}
	for i := range results {
		if reason := results[i].rejected; reason != nil {
			rejected.Records[i] = reason
		}
	}
	if len(rejected.Records) > 0 {
		return rejected
	}
	for _, s := range []*signal{o.metrics, o.logs} {
		if s == nil {
			continue
		}
		if err := s.unnamed.take(len(results)); err != nil {
			return err
		}
	}
	return nil
}

// InheritFrom takes over what a predecessor has stored of records that are still queued.
func (o *output) InheritFrom(predecessor plugin.Pusher) {
	if p, ok := predecessor.(*output); ok {
		o.progress.inherit(&p.progress)
	}
}

// Close closes the connections.
func (o *output) Close() error { return errors.Join(o.metrics.close(), o.logs.close()) }

var errUnknownRecord = errors.New("not a record of this version of sockwatch")
