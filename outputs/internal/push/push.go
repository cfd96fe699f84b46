// Package push is the HTTP client of the outputs that push. It tries several servers, logs
// in, speaks TLS with certificates that may be replaced, compresses, and turns answers
// into the errors that the agent expects from a Push.
//
// push.go has the main path: Push, Try, Post. options.go has the options that the outputs
// share, classify.go what an answer means, answer.go how it is read, credentials.go and
// echoes.go how secrets are sent and hidden, transport.go the connections, file.go the
// files that are read again, and compress.go the compression.
//
// An output embeds Options, or Login and Transport, in its own options. It builds the
// bodies itself, and usually needs only
//
//	compressor := push.NewCompressor("gzip")
//	client, err := push.New(push.Config{...})
//
//	// in Push
//	body, err := compressor.Compress(raw)
//	answer, err := client.Push(ctx, &push.Request{ContentType: "...", ContentEncoding: compressor.Encoding(), Body: body, Records: len(records)})
package push

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
)

// A Config is what New makes a Client from.
type Config struct {
	// URLs are the servers, at least one. ValidateURL accepts each.
	URLs []string
	// Login, Headers and Transport are options that Validate accepts.
	Login     Login
	Headers   map[string]string
	Transport Transport
	// TokenScheme precedes the token in the header Authorization. "": Bearer.
	TokenScheme string
	// Advice returns what to do about an answer that is neither about records nor about
	// the state of the server: "create the bucket". It is asked before the client's own
	// advice, which it leaves in place by returning "". It may be nil.
	Advice func(*Answer) string
	// Log receives the warnings that no error can carry, once each.
	Log *slog.Logger
}

// A Client posts to the server that worked last. Its methods must not be called
// concurrently.
type Client struct {
	servers []*Server
}

// A Server is the server of one URL.
type Server struct {
	// Name is the scheme and host of the URL, for messages: the rest may be secret.
	Name string
	// URL is where requests go, unless they add a path.
	URL *url.URL
}

// A Request is what a Client sends. It may be sent more than once.
type Request struct {
	Method          string // "": POST
	Path            string // appended to the path of the server's URL; "": none
	Query           string // appended to the query of the server's URL; "": none
	ContentType     string
	ContentEncoding string // of Body; "": none
	Header          http.Header
	// Body is kept until the request has ended, even if Post has returned: it must not be
	// reused.
	Body []byte
	// Records is the number of records in Body.
	Records int
}

// New returns a client. It opens nothing.
func New(c Config) (*Client, error) { return nil, errors.New("not built yet") }

// Push sends a request to the server that worked last. If that server fails, Push tries
// the others in turn, within the time that ctx leaves. If an error is about the records
// themselves, no other server is tried.
//
// The answer is that of the server tried last, or nil if it gave none. The error is that of
// Classify, or of the connection.
func (c *Client) Push(ctx context.Context, r *Request) (*Answer, error) {
	return nil, errors.New("not built yet")
}

// Try calls try for the server that worked last, and then for the others in turn, until it
// returns nil or an error about the records: a plugin.RejectedError, plugin.ErrRejected or
// plugin.ErrTooLarge. It is for outputs that send more than one request, or classify
// answers themselves. Each call gets an equal share of the time that ctx leaves.
// An error of try must name the server.
func (c *Client) Try(ctx context.Context, try func(context.Context, *Server) error) error {
	return errors.New("not built yet")
}

// Post sends a request to one server and returns its answer, whatever its status. The
// error names the server and contains no secret. Only Try may call it, through its
// argument.
func (c *Client) Post(ctx context.Context, s *Server, r *Request) (*Answer, error) {
	return nil, errors.New("not built yet")
}

// Classify returns nil if a server's answer says that it has stored the records of a
// request (any 2xx), else the error for the agent, which names the server and says what to
// do:
//
//	413                               plugin.ErrTooLarge: fewer records may fit
//	429 and 5xx with Retry-After      plugin.RetryAfterError: the records stay queued
//	401, 403, 404, 408, 429, 5xx      any other error: the records stay queued
//	3xx, and 4xx not about records    the same: 405, 407, 421, 425
//	other 4xx                         plugin.RejectedError for one record, plugin.ErrRejected for
//	                                  several: the agent bisects
func (c *Client) Classify(s *Server, a *Answer, records int) error {
	return errors.New("not built yet")
}

// Describe returns the status and the text of an answer as one line of bounded length
// without secrets, for an error.
func (c *Client) Describe(a *Answer) string { return "" }

// Close closes idle connections.
func (c *Client) Close() error { return nil }
