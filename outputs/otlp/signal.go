package otlp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/push"
)

// A signal sends the records of one kind to their URL. A nil signal has no URL.
type signal struct {
	name       string // "metrics" or "logs"
	option     string // with its URL
	client     *push.Client
	compressor *push.Compressor
	maxBody    int
	request    request
	log        *slog.Logger

	// unnamed is how many records the server has rejected without naming them, and Push
	// has not reported yet. unnamedErr is the last answer about them.
	unnamed    int
	unnamedErr error

	retryAt  time.Time // the server asked not to send before
	refusal  error     // its answer then
	warnedOf string    // the last warning of the server
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
	// bodyWithoutInfo returns what to send if the receiver refuses the times in body: nil if
	// there is nothing else.
	bodyWithoutInfo() []byte
}

// newSignal returns the signal of a kind, or nil if it has no URL.
func newSignal(name, option, url string, o *Options, log *slog.Logger, r request) (*signal, error) {
	if url == "" {
		return nil, nil
	}
	client, err := push.New(push.Config{
		URLs: []string{url}, URLOption: option, Login: o.Login, Headers: o.Headers, Transport: o.Transport, Text: answerText, Log: log,
	})
	if err != nil {
		return nil, err
	}
	return &signal{
		name: name, option: option, client: client, compressor: push.NewCompressor(o.ContentEncoding), maxBody: int(o.MaxBody), request: r, log: log,
	}, nil
}

var errNoURL = errors.New("the URL for records of its kind is not set any more")

// send sends records in as many requests as necessary. It sets the result of each record that
// it has stored, or that is rejected for good. After an error the others may be sent again.
func (s *signal) send(ctx context.Context, records [][]byte, indexes []int, results []result) error {
	if s == nil {
		for _, i := range indexes {
			results[i] = rejectedFor(errNoURL)
		}
		return nil
	}
	if wait := time.Until(s.retryAt); wait > 0 && len(indexes) > 0 {
		return &plugin.RetryAfterError{Wait: wait, Err: s.refusal}
	}
	for len(indexes) > 0 {
		n := s.fill(records, indexes, results)
		if err := s.sendRequest(ctx, indexes[:n], results); err != nil {
			if after, ok := errors.AsType[*plugin.RetryAfterError](err); ok {
				s.retryAt, s.refusal = time.Now().Add(after.Wait), fmt.Errorf("%s: %w", s.name, after.Err)
			}
			return fmt.Errorf("%s: %w", s.name, err)
		}
		indexes = indexes[n:]
	}
	return nil
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

// sendRequest sends the request and sets the results of its records.
func (s *signal) sendRequest(ctx context.Context, indexes []int, results []result) error {
	if s.request.items() == 0 {
		return nil
	}
	pending := make([]int, 0, len(indexes))
	for _, i := range indexes {
		if !results[i].done {
			pending = append(pending, i)
		}
	}
	a, err := s.post(ctx, s.request.body(), len(pending))
	if refused, ok := errors.AsType[*timesError](err); ok {
		if body := s.request.bodyWithoutInfo(); body != nil {
			a, err = s.post(ctx, body, len(pending))
			refused, ok = errors.AsType[*timesError](err)
		}
		if ok {
			err = plugin.RejectAll(len(pending), refused)
		}
	}
	if rejected, ok := errors.AsType[*plugin.RejectedError](err); ok && len(rejected.Records) > 0 {
		for n, reason := range rejected.Records {
			results[pending[n]] = rejectedFor(reason)
		}
		return nil
	}
	if err != nil {
		return err
	}
	s.note(a, len(pending))
	for _, i := range pending {
		results[i] = stored
	}
	return nil
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

// post sends a body with n records. The error is nil if the receiver has accepted it.
func (s *signal) post(ctx context.Context, body []byte, n int) (a *accepted, err error) {
	compressed, err := s.compressor.Compress(body)
	if err != nil {
		return nil, err
	}
	err = s.client.Try(ctx, func(ctx context.Context, server *push.Server) error {
		answer, err := s.client.Post(ctx, server, &push.Request{
			ContentType: "application/x-protobuf", ContentEncoding: s.compressor.Encoding(), Body: compressed, Records: n,
		})
		if err == nil {
			a, err = s.classify(server, answer, n)
		}
		return err
	})
	return a, err
}

// classify returns the error for an answer, or what the receiver has accepted.
func (s *signal) classify(server *push.Server, answer *push.Answer, n int) (*accepted, error) {
	if push.RefusesTimes(answer.Status, answerText(answer)) {
		return nil, &timesError{server.Name + ": " + s.client.Describe(answer)}
	}
	if err := s.client.Classify(server, answer, n); err != nil {
		return nil, err
	}
	if isPage(answer) {
		return nil, fmt.Errorf("%s: %s with a page of HTML: this is not how a receiver of OTLP answers: check %s", server.Name, s.client.Line(answer.Status, ""), s.option)
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
		s.unnamed += int(min(a.rejected, int64(records)))
		s.unnamedErr = fmt.Errorf("%s: %d of %d data points or log records rejected", a.text, a.rejected, s.request.items())
	case a.message != "" && a.message != s.warnedOf:
		s.warnedOf = a.message
		s.log.Warn("receiver warns", "kind", s.name, "answer", a.text)
	}
}

func (s *signal) close() error {
	if s == nil {
		return nil
	}
	return s.client.Close()
}
