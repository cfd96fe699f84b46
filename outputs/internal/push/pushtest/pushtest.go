// Package pushtest is shared by the tests of outputs over HTTP: a server that records requests
// and gives the answers that the test sets, a log, and the names of errors.
package pushtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"sockwatch/agent/plugin"
)

// A Server records every request and gives the answers that a test sets.
type Server struct {
	*httptest.Server

	mu       sync.Mutex
	answer   http.HandlerFunc
	requests []Request
}

// A Request is what a Server has received.
type Request struct {
	Method, URL, Login, Encoding, ContentType string
	Body                                      string // decompressed
	Header                                    http.Header
}

// NewServer starts a server that answers 204, until the end of the test.
func NewServer(t testing.TB) *Server {
	t.Helper()
	s := &Server{}
	s.Answers(http.StatusNoContent, "")
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := ReadBody(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusTeapot)
		return
	}
	s.mu.Lock()
	answer := s.answer
	s.requests = append(s.requests, Request{
		Method: r.Method, URL: r.URL.String(), Login: r.Header.Get("Authorization"), Encoding: r.Header.Get("Content-Encoding"),
		ContentType: r.Header.Get("Content-Type"), Body: string(body), Header: r.Header,
	})
	s.mu.Unlock()
	answer(w, r)
}

// ReadBody returns the body of a request, decompressed.
func ReadBody(r *http.Request) ([]byte, error) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "":
		return raw, nil
	case "gzip":
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(z)
	case "zstd":
		z, err := zstd.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		return io.ReadAll(z)
	case "snappy":
		return snappy.Decode(nil, raw)
	default:
		return nil, fmt.Errorf("content encoding %q", encoding)
	}
}

// Answers makes the server answer with a status, a body and headers ("Name: value").
func (s *Server) Answers(status int, body string, headers ...string) {
	s.Does(func(w http.ResponseWriter, _ *http.Request) {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
}

// Does makes the server answer with a handler, after the request's body has been read.
func (s *Server) Does(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// Took returns the requests since the last call.
func (s *Server) Took() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.requests
	s.requests = nil
	return r
}

// A Log is a logger's output.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Logger returns a logger to the log.
func (l *Log) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// Write appends what a logger writes.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// Lines returns what was logged, without times.
func (l *Log) Lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for line := range strings.Lines(l.buf.String()) {
		_, line, _ = strings.Cut(strings.TrimSuffix(line, "\n"), " ") // the time
		lines = append(lines, line)
	}
	return lines
}

// Kind names how the agent handles an error of Push: "stored", "rejected [0 2]" with the
// indices of the records and perhaps ", others stored", "bisect" with the same, "too
// large", "after 5s", or "kept".
func Kind(err error) string {
	after, isAfter := errors.AsType[*plugin.RetryAfterError](err)
	rejected, isRejected := errors.AsType[*plugin.RejectedError](err)
	switch {
	case err == nil:
		return "stored"
	case isRejected && len(rejected.Records) == 0:
		return "bisect, others stored"
	case isRejected && rejected.OthersStored:
		return fmt.Sprintf("rejected %v, others stored", slices.Sorted(maps.Keys(rejected.Records)))
	case isRejected:
		return fmt.Sprintf("rejected %v", slices.Sorted(maps.Keys(rejected.Records)))
	case errors.Is(err, plugin.ErrRejected):
		return "bisect"
	case errors.Is(err, plugin.ErrTooLarge):
		return "too large"
	case isAfter:
		return "after " + after.Wait.String()
	default:
		return "kept"
	}
}
