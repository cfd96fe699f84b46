package otlp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/push"
)

// A signal sends the records of one kind to their URL. A nil signal has no URL.
type signal struct {
	name       string // "metrics" or "logs"
	client     *push.Client
	compressor *push.Compressor
	maxBody    int
	request    request
	samples    *metricsRequest // the request, if it is of metrics
	log        *slog.Logger

	unnamed    unnamed
	refusal    refusal
	unanswered push.Unanswered // more than 0: see sendByTime
	warnedOf   string          // the last warning of the receiver
}

// An unnamed counts the records that the receiver has rejected without naming them, until a
// Push reports them.
type unnamed struct {
	count int
	err   error // the last answer about them
}

// take returns the error that reports at most that many of the records, or nil if there are
// none.
func (u *unnamed) take(most int) error {
	n := min(u.count, most)
	if n == 0 {
		return nil
	}
	u.count -= n
	return &plugin.PartialError{Rejected: n, Err: u.err}
}

// A refusal is an answer that asks the client to wait.
type refusal struct {
	until time.Time
	err   error
}

// A request collects records.
type request interface {
	// reset removes all records.
	reset()
	// add adds a record. It reports false if the request has others and would be larger
	// than limit. An error is about this record.
	add(record []byte, limit int) (bool, error)
	// items returns the number of data points or log records.
	items() int
	// body returns the encoded request, which does not change later.
	body() []byte
}

// newSignal returns the signal of a kind, or nil if it has no URL.
func newSignal(name, option, url string, o *Options, log *slog.Logger, r request) (*signal, error) {
	if url == "" {
		return nil, nil
	}
	client, err := push.New(push.Config{
		URLs: []string{url}, URLOption: option, Options: o.Options,
		Text: answerText, Receiver: "a receiver of OTLP", Log: log,
	})
	if err != nil {
		return nil, err
	}
	samples, _ := r.(*metricsRequest)
	return &signal{
		name: name, client: client, compressor: push.NewCompressor(o.ContentEncoding), maxBody: int(o.MaxBody),
		request: r, samples: samples, log: log, unanswered: window,
	}, nil
}

var errNoURL = errors.New("the URL for records of its kind is no longer set")

// send sends records in as many requests as necessary. It sets the result of each record that
// it has stored, or that is rejected for good. After an error the others may be sent again.
func (s *signal) send(ctx context.Context, records [][]byte, indexes []int, results []result) error {
	if s == nil {
		for _, i := range indexes {
			results[i] = rejectedFor(errNoURL)
		}
		return nil
	}
	if wait := time.Until(s.refusal.until); wait > 0 && len(indexes) > 0 {
		return &plugin.RetryAfterError{Wait: wait, Err: s.refusal.err}
	}
	for len(indexes) > 0 {
		n := s.fill(records, indexes, results)
		err := s.sendRequest(ctx, records, indexes[:n], results)
		s.trackUnanswered(records, indexes[:n], results, err)
		if after, ok := errors.AsType[*plugin.RetryAfterError](err); ok {
			s.refusal = refusal{until: time.Now().Add(after.Wait), err: fmt.Errorf("%s: %w", s.name, after.Err)}
			return &plugin.RetryAfterError{Wait: after.Wait, Err: s.refusal.err}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		indexes = indexes[n:]
	}
	return nil
}

// trackUnanswered keeps count of what the receiver may have stored without an answer.
func (s *signal) trackUnanswered(records [][]byte, indexes []int, results []result, err error) {
	size, isStored := 0, false
	for _, i := range indexes {
		size += len(records[i])
		isStored = isStored || results[i] == stored
	}
	switch {
	case mustSplit(err): // fewer of the same records are next
	case err != nil:
		s.unanswered.Failed(size)
	case isStored:
		s.unanswered.Stored()
	default:
		s.unanswered.Rejected(size)
	}
}

// fill adds records to a new request, and returns how many. Those that are damaged are
// rejected.
func (s *signal) fill(records [][]byte, indexes []int, results []result) int {
	s.request.reset()
	for n, i := range indexes {
		added, err := s.request.add(records[i], s.maxBody)
		if err != nil {
			results[i] = rejectedFor(err)
		} else if !added {
			return n
		}
	}
	return len(indexes)
}

// sendRequest sends the request, and sets the results of its records.
func (s *signal) sendRequest(ctx context.Context, records [][]byte, indexes []int, results []result) error {
	pending := slices.DeleteFunc(slices.Clone(indexes), func(i int) bool { return results[i].done })
	if len(pending) == 0 {
		return nil
	}
	err := s.post(ctx, s.request.body(), pending, results)
	if _, ok := errors.AsType[*timesError](err); !ok {
		return err
	}
	err = s.post(ctx, s.samples.bodyWithoutInfo(), pending, results)
	refused, ok := errors.AsType[*timesError](err)
	if !ok {
		return err
	}
	if groups := push.ByTime(pending, func(i int) int64 { return timeOf(records[i]) }); s.unanswered > 0 && len(groups) > 1 {
		return s.sendByTime(ctx, records, groups, results)
	}
	rejectAll(pending, results, refused)
	return nil
}

// sendByTime sends one request per timestamp: see push.ByTime.
func (s *signal) sendByTime(ctx context.Context, records [][]byte, groups [][]int, results []result) error {
	for _, group := range groups {
		s.request.reset()
		for _, i := range group {
			s.request.add(records[i], math.MaxInt) // it was added before
		}
		err := s.post(ctx, s.samples.bodyWithoutInfo(), group, results)
		if refused, ok := errors.AsType[*timesError](err); ok {
			rejectAll(group, results, refused)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func rejectAll(indexes []int, results []result, reason error) {
	for _, i := range indexes {
		results[i] = rejectedFor(reason)
	}
}

// A timesError is an answer that refuses samples because of their times.
type timesError struct{ text string }

func (e *timesError) Error() string { return e.text }

// An accepted is an answer by which a receiver accepts a request, perhaps not all of it.
type accepted struct {
	rejected int64  // data points or log records
	message  string // why, or a warning; "" if there is none
	text     string // the answer, for messages
}

// post sends a body with the given records, and sets their results if they are stored or
// rejected.
func (s *signal) post(ctx context.Context, body []byte, indexes []int, results []result) error {
	compressed, err := s.compressor.Compress(body)
	if err != nil {
		return err
	}
	var a *accepted
	err = s.client.Push(ctx, &push.Request{
		ContentType: "application/x-protobuf", ContentEncoding: s.compressor.Encoding(), Body: compressed, Records: len(indexes),
	}, func(server *push.Server, answer *push.Response) (err error) {
		a, err = s.classify(server, answer, len(indexes))
		return err
	})
	if rejected, ok := errors.AsType[*plugin.RejectedError](err); ok && len(rejected.Records) > 0 {
		for n, reason := range rejected.Records {
			results[indexes[n]] = rejectedFor(reason)
		}
		return nil
	}
	if err != nil {
		return err
	}
	s.note(a, len(indexes))
	for _, i := range indexes {
		results[i] = stored
	}
	return nil
}

// classify returns the error for an answer, or what the receiver has accepted.
func (s *signal) classify(server *push.Server, answer *push.Response, n int) (*accepted, error) {
	if s.samples != nil && push.RefusesTimes(answer.Status, answerText(answer)) {
		return nil, &timesError{server.Name + ": " + s.client.Describe(answer)}
	}
	if err := s.client.Classify(server, answer, n); err != nil {
		return nil, err
	}
	a := &accepted{}
	a.rejected, a.message = parsePartialSuccess(answer.Body)
	a.text = server.Name + ": " + s.client.Line(answer.Status, a.message)
	if a.rejected >= int64(s.request.items()) {
		return nil, plugin.RejectAll(n, errors.New(a.text))
	}
	return a, nil
}

// note counts the records that the receiver has rejected without naming them, and logs a
// warning that it has not sent before.
func (s *signal) note(a *accepted, records int) {
	switch {
	case a.rejected > 0:
		s.unnamed.count += int(min(a.rejected, int64(records)))
		s.unnamed.err = fmt.Errorf("%s: %d of %d data points or log records rejected", a.text, a.rejected, s.request.items())
	case a.message != "" && a.message != s.warnedOf:
		s.warnedOf = a.message
		s.log.Warn("warning from the receiver", "kind", s.name, "answer", a.text)
	}
}

func (s *signal) close() error {
	if s == nil {
		return nil
	}
	return s.client.Close()
}
