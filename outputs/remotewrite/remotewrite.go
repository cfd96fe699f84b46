// Package remotewrite is the output remote_write: points as series to Prometheus or any
// server that implements its remote write, in version 2.0 or 1.0 of the protocol.
//
// remotewrite.go has the main path: Encode makes records, Push collects their samples and
// sends them. record.go has the format of a record and its parser, encoder.go encodes points
// as records, series.go has the samples of a request, message.go the protobuf messages, and
// classify.go classifies responses.
package remotewrite

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/promname"
	"sockwatch/outputs/internal/push"
)

// Plugin is the output remote_write.
var Plugin = plugin.DefinePush(plugin.Definition[Options, plugin.Pusher]{
	Name:          "remote_write",
	Defaults:      Defaults,
	Example:       Example,
	New:           New,
	FlushInterval: 10 * time.Second,
	MinInterval:   time.Minute,
	Sample: plugin.Sample{
		NameDrop: []string{"custom_port_exporter"},
		Why:      "custom_port_exporter has the pid as a tag, so every process that listens makes a new series. Leave that point to the page that Prometheus scrapes.",
	},
	Telegraf: plugin.Telegraf{ // of outputs.http with data_format = "prometheusremotewrite"
		Options: map[string]string{
			"bearer_token":               "write token, or token_file",
			"content_encoding":           "leave it out: the protocol requires snappy",
			"data_format":                "leave it out: this output writes nothing else",
			"idle_conn_timeout":          "leave it out: it cannot be set",
			"method":                     "leave it out: the protocol requires POST",
			"non_retryable_statuscodes":  "leave it out: the status and the message of the response decide",
			"prometheus_sort_metrics":    "leave it out: samples are sorted",
			"prometheus_string_as_label": "leave it out: strings are not sent",
			"url":                        `write urls = ["URL"]`,
			"use_batch_format":           "leave it out: points are always sent in batches",
		},
	},
})

// New returns the output of one instance.
func New(o Options, env plugin.Env) (plugin.Pusher, error) {
	client, err := push.New(push.Config{URLs: o.URLs, URLOption: "urls", Options: o.Options, Receiver: "a receiver of remote write", Log: env.Log})
	if err != nil {
		return nil, err
	}
	out := &output{
		options: o, log: env.Log, client: client, compressor: push.NewCompressor("snappy"),
		collector: newCollector(), speaks1: map[string]time.Time{}, unanswered: push.Unanswered(o.MaxBody),
	}
	out.encoder.dropped = newDropLog(env.Log)
	return out, nil
}

type output struct {
	options Options
	log     *slog.Logger
	encoder encoder
	docs    promname.Docs

	// Only Push uses the rest.
	client     *push.Client
	compressor *push.Compressor
	collector  *collector
	speaks1    map[string]time.Time // by URL: until when a server gets version 1.0 instead of 2.0
	docsSent   time.Time            // when the last request of version 1.0 had the documentation
	unanswered push.Unanswered      // more than 0: see pushByTime
}

// MaxBytes limits the size of one request.
func (o *output) MaxBytes() int { return int(o.options.MaxBody) }

// UseDescs sets the documentation of the points that follow.
func (o *output) UseDescs(descs []metric.Desc) {
	o.encoder.useDescs(descs)
	o.docs.Learn(descs)
}

// Encode appends the point as one record, or nothing if it has only strings.
func (o *output) Encode(dst []byte, p *metric.Point) ([]byte, error) {
	return o.encoder.append(dst, p, false), nil
}

// EncodeEvent leaves events out, unless the option events is set: they are not series.
func (o *output) EncodeEvent(dst []byte, event *metric.Point) ([]byte, error) {
	if !o.options.Events {
		return dst, nil
	}
	return o.encoder.append(dst, event, false), nil
}

// EncodeEnded appends a record with a stale marker for each field of a series.
func (o *output) EncodeEnded(dst []byte, series *metric.Point, t time.Time) ([]byte, error) {
	ended := *series
	ended.Time = t
	return o.encoder.append(dst, &ended, true), nil
}

// Restamp appends a record with another time.
func (o *output) Restamp(dst, record []byte, t time.Time) ([]byte, error) {
	return restamp(dst, record, t)
}

// Push sends records to the server that worked last, or to the next one if that fails. It
// first names the records that cannot be sent. The agent then pushes the others.
func (o *output) Push(ctx context.Context, records [][]byte) error {
	c, rejected := o.collector.collect(records, o.oldest())
	if len(rejected) > 0 {
		return &plugin.RejectedError{Records: rejected}
	}
	err := o.send(ctx, c)
	if isFinalRejection(err) && o.unanswered > 0 && c.first != c.last {
		err = o.pushByTime(ctx, records)
	}
	o.trackUnanswered(records, err)
	return err
}

// trackUnanswered keeps count of what the server may have stored without an answer.
func (o *output) trackUnanswered(records [][]byte, err error) {
	size := 0
	for _, r := range records {
		size += len(r)
	}
	rejected, isRejected := errors.AsType[*plugin.RejectedError](err)
	_, isPartial := errors.AsType[*plugin.PartialError](err)
	switch {
	case err == nil || isPartial || isRejected && len(rejected.Records) < len(records):
		o.unanswered.Stored()
	case isRejected:
		o.unanswered.Rejected(size)
	case errors.Is(err, plugin.ErrRejected) || errors.Is(err, plugin.ErrTooLarge): // fewer of the same records are next
	default:
		o.unanswered.Failed(size)
	}
}

// oldest returns the time of the oldest sample that may be sent, in milliseconds.
func (o *output) oldest() int64 {
	if o.options.SampleAgeLimit == 0 {
		return math.MinInt64
	}
	return time.Now().Add(-time.Duration(o.options.SampleAgeLimit)).UnixMilli()
}

// pushByTime sends one request per timestamp: see push.ByTime.
func (o *output) pushByTime(ctx context.Context, records [][]byte) error {
	rejected := &plugin.RejectedError{Records: map[int]error{}, OthersStored: true}
	all := make([]int, len(records))
	for i := range all {
		all[i] = i
	}
	for _, group := range push.ByTime(all, func(i int) int64 { return timeOf(records[i]) }) {
		part := make([][]byte, len(group))
		for i, index := range group {
			part[i] = records[index]
		}
		c, _ := o.collector.collect(part, math.MinInt64)
		err := o.send(ctx, c)
		_, partly := errors.AsType[*plugin.PartialError](err)
		switch {
		case err == nil:
		case isFinalRejection(err) || partly: // of a group in part, the server does not name the records: all are saved
			for _, index := range group {
				rejected.Records[index] = err
			}
		default:
			return err
		}
	}
	if len(rejected.Records) == 0 {
		return nil
	}
	return rejected
}

// send sends a collection in the version of the protocol that the server understands.
func (o *output) send(ctx context.Context, c *collection) error {
	if c.samples == 0 {
		return nil
	}
	err := o.client.Try(ctx, func(ctx context.Context, s *push.Server) error { return o.sendTo(ctx, s, c) })
	if _, partly := errors.AsType[*plugin.PartialError](err); err == nil || partly {
		o.collector.commit(c)
	}
	return err
}

// askAgain is how long a server that does not understand 2.0 gets 1.0.
const askAgain = time.Hour

// sendTo sends a collection to one server.
func (o *output) sendTo(ctx context.Context, s *push.Server, c *collection) error {
	version, url := o.options.ProtocolVersion, s.URL.String()
	if version == version2 || version == auto && time.Now().After(o.speaks1[url]) {
		resp, err := o.post(ctx, s, version2, c, appendV2(nil, c, o.docs.All()))
		if err != nil {
			return err
		}
		if version == version2 || understands2(resp) {
			return o.classify(s, resp, c, version2)
		}
	}
	docs := o.dueDocs()
	resp, err := o.post(ctx, s, version1, c, appendV1(nil, c, docs))
	if err != nil {
		return err
	}
	if err := o.classify(s, resp, c, version1); err != nil {
		return err
	}
	if docs != nil {
		o.docsSent = time.Now()
	}
	if version == auto && time.Now().After(o.speaks1[url]) {
		if o.speaks1[url].IsZero() {
			o.log.Info("server does not understand remote write 2.0, using 1.0", "url", s.Name)
		}
		o.speaks1[url] = time.Now().Add(askAgain)
	}
	return nil
}

// resendDocs is how often requests of version 1.0 contain the documentation of all metrics.
// Grafana Mimir forgets it after ten minutes.
const resendDocs = 5 * time.Minute

// dueDocs returns all of the documentation if it has to be sent again.
func (o *output) dueDocs() map[string]promname.Doc {
	if time.Since(o.docsSent) < resendDocs {
		return nil
	}
	return o.docs.All()
}

// versionHeader holds the version of a request.
const versionHeader = "X-Prometheus-Remote-Write-Version"

// post sends one message.
func (o *output) post(ctx context.Context, s *push.Server, version string, c *collection, message []byte) (*push.Response, error) {
	body, err := o.compressor.Compress(message)
	if err != nil {
		return nil, err
	}
	r := &push.Request{
		ContentType: "application/x-protobuf", ContentEncoding: o.compressor.Encoding(), Body: body, Records: c.records,
		Header: http.Header{versionHeader: {"0.1.0"}},
	}
	if version == version2 {
		r.ContentType += ";proto=io.prometheus.write.v2.Request"
		r.Header.Set(versionHeader, "2.0.0")
	}
	return o.client.Post(ctx, s, r)
}

// InheritFrom takes over which samples were sent last, and which servers get version 1.0.
func (o *output) InheritFrom(predecessor plugin.Pusher) {
	if p, ok := predecessor.(*output); ok {
		o.collector, o.unanswered, o.speaks1 = p.collector, p.unanswered, p.speaks1
	}
}

// Close closes the connections.
func (o *output) Close() error { return o.client.Close() }

// maxDropsLogged bounds the memory for what was logged.
const maxDropsLogged = 1000

// newDropLog returns a function that logs, once for each name, that a tag or a field is left
// out of a series because another one has the same name in Prometheus.
func newDropLog(log *slog.Logger) func(series, what, name string) {
	logged := map[[2]string]bool{}
	return func(series, what, name string) {
		key := [2]string{what, name}
		if !logged[key] && len(logged) < maxDropsLogged {
			logged[key] = true
			log.Warn("dropped a "+what+" whose name in Prometheus is already taken", "name", name, "series", series)
		}
	}
}
