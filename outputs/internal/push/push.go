// Package push is the HTTP client of the outputs that push. It tries several servers, logs
// in, speaks TLS with certificates that may be replaced, compresses, and turns responses
// into the errors that the agent expects from a Push.
//
// push.go has the main path, from Push to Post. options.go and address.go have the options
// that the outputs share, transport.go the connections, credentials.go and echoes.go how
// secrets are sent and hidden, file.go the files that are read again, response.go how a
// response is read, classify.go what it means (times.go, if it is about the times of samples),
// and compress.go the compression.
//
// An output embeds Options, or Login and Transport, in its own options. Its Push makes a body
// of the records and sends it:
//
//	func (o *output) Push(ctx context.Context, records [][]byte) error {
//		body, err := o.compressor.Join(records, push.JSONArray)
//		if err != nil {
//			return err
//		}
//		return o.client.Push(ctx, &push.Request{
//			ContentType: "application/json", ContentEncoding: o.compressor.Encoding(), Body: body, Records: len(records),
//		}, nil)
//	}
//
// Outputs that classify responses in their own way give Push a function for it, which uses
// Classify, Rejection and Failure. Those that send a server more than one request use Try
// and Post.
package push

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/plugin"
)

// A Config is what New makes a Client from.
type Config struct {
	// URLs are the servers, at least one. ValidateURL accepts each.
	URLs []string
	// URLOption is the option with the URLs, for messages: "urls".
	URLOption string
	// Options are the output's. They are valid.
	Options
	// TokenScheme precedes the token in the header Authorization. "": Bearer.
	TokenScheme string
	// Text returns the message in an answer, which need not be one line. If it is nil,
	// Response.Text is used.
	Text func(*Response) string
	// Receiver is what answers a request, for messages: "a receiver of OTLP". If it is set, a
	// web page with a status of success is an error: it comes from a login portal or a proxy.
	Receiver string
	// Advice returns what to do about an answer that is neither about records nor about
	// the state of the server: "create the bucket". If it returns "" or is nil, the error
	// has general advice.
	Advice func(*Server, *Response) string
	// Log receives the warnings that no error can carry, once each.
	Log *slog.Logger
}

// A Client sends requests to the server that worked last. Its methods must not be called
// concurrently.
type Client struct {
	config      Config
	servers     []*Server
	current     int // index of the server that worked last
	credentials *credentials
	transport   *transport
}

// A Server is the server of one URL.
type Server struct {
	// Name is the scheme and host of the URL, for messages: the rest may be secret.
	Name string
	// URL is where requests go, unless they add a path or a query.
	URL *url.URL
	// refusesExpect reports that the server answered "Expect: 100-continue" with 417.
	refusesExpect bool
}

// A Request is what a Client sends. It may be sent more than once.
type Request struct {
	Method          string // "": POST
	Path            string // appended to the path of the server's URL; "": none
	Query           string // appended to the query of the server's URL; "": none
	ContentType     string
	ContentEncoding string      // of Body; "": none
	Header          http.Header // further headers; the ones of the configuration take precedence
	// Body must never be reused: a connection may still be sending it when Push and Post
	// have returned.
	Body []byte
	// Records is the number of records in Body.
	Records int
}

// New returns a client. It opens nothing.
func New(config Config) (*Client, error) {
	c := &Client{config: config, transport: newTransport(&config.Transport)}
	for _, address := range config.URLs {
		u, err := parseURL(address, true)
		if err != nil {
			return nil, err
		}
		c.servers = append(c.servers, &Server{Name: u.Scheme + "://" + u.Host, URL: u})
	}
	c.credentials = newCredentials(&config, c.servers)
	return c, nil
}

// Push sends a request to the server that worked last. If that server fails, Push tries
// the others in turn, within the time that ctx leaves. If an error is about the records
// themselves, no other server is tried.
//
// classify returns the error for an answer, or nil if the records are stored. If it is nil,
// Classify is used.
func (c *Client) Push(ctx context.Context, r *Request, classify func(*Server, *Response) error) error {
	if classify == nil {
		classify = func(s *Server, resp *Response) error { return c.Classify(s, resp, r.Records) }
	}
	return c.Try(ctx, func(ctx context.Context, s *Server) error {
		resp, err := c.Post(ctx, s, r)
		if err != nil {
			return err
		}
		return classify(s, resp)
	})
}

// Try calls try for the server that worked last, and then for the others in turn, until it
// returns nil or an error about the records: a plugin.RejectedError, plugin.PartialError,
// plugin.ErrRejected or plugin.ErrTooLarge. It is for outputs that send a server more than
// one request. Each call gets an equal share of the time that ctx leaves.
//
// An error of try must name the server.
func (c *Client) Try(ctx context.Context, try func(context.Context, *Server) error) error {
	if err := c.credentials.refresh(ctx); err != nil {
		return err
	}
	if err := c.transport.refresh(ctx); err != nil {
		return err
	}
	c.credentials.warnOfPlaintext(c.servers)
	var failures []error
	for attempts := len(c.servers); attempts > 0; attempts-- {
		err := func() error {
			ctx, cancel := shareOfTime(ctx, attempts)
			defer cancel()
			return try(ctx, c.servers[c.current])
		}()
		if err == nil || concernsRecords(err) {
			return err
		}
		failures = append(failures, err)
		c.current = (c.current + 1) % len(c.servers)
	}
	return JoinFailures(failures...)
}

// expectAbove is the size above which a body is announced with "Expect: 100-continue". A
// server that refuses the body can then answer 413. Without it, the server might reset the
// connection, and the answer would be lost.
const expectAbove = 1 << 20

// Post sends a request to one server and returns its answer, whatever its status. An error
// names the server and contains no secret. Only the argument of Try may call it.
func (c *Client) Post(ctx context.Context, s *Server, r *Request) (*Response, error) {
	req, err := http.NewRequestWithContext(ctx, cmp.Or(r.Method, http.MethodPost), s.target(r), bytes.NewReader(r.Body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, c.credentials.hideInError(withoutURL(err)))
	}
	for name, values := range r.Header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	req.Header.Set("Content-Type", r.ContentType)
	req.Header.Set("User-Agent", "sockwatch")
	if r.ContentEncoding != "" {
		req.Header.Set("Content-Encoding", r.ContentEncoding)
	}
	expect := len(r.Body) > expectAbove && !s.refusesExpect
	if expect {
		req.Header.Set("Expect", "100-continue")
	}
	c.credentials.apply(req)
	// net/http may repeat the request if the connection turns out to be dead: delivery is
	// at least once. The header itself is not sent.
	req.Header["Idempotency-Key"] = nil
	resp, err := c.transport.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, c.credentials.hideInError(c.withAdvice(withoutURL(err))))
	}
	defer resp.Body.Close()
	if expect && resp.StatusCode == http.StatusExpectationFailed {
		s.refusesExpect = true
		return c.Post(ctx, s, r)
	}
	return readResponse(resp), nil
}

// withAdvice adds to the error of a connection which options it is about.
func (c *Client) withAdvice(err error) error {
	t := &c.config.Transport
	_, unknownCA := errors.AsType[x509.UnknownAuthorityError](err)
	_, otherHost := errors.AsType[x509.HostnameError](err)
	invalid, _ := errors.AsType[x509.CertificateInvalidError](err)
	text := err.Error()
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within timeout: %w", err)
	case strings.Contains(text, "malformed HTTP response"):
		return fmt.Errorf("%w: this is not the port of an HTTP/1.1 server: check %s", err, c.config.URLOption)
	case unknownCA && t.TLSCA == "":
		return fmt.Errorf("%w: set tls_ca", err)
	case unknownCA:
		return fmt.Errorf("%w: check tls_ca", err)
	case otherHost:
		return fmt.Errorf("%w: set tls_server_name, or check %s", err, c.config.URLOption)
	case invalid.Reason == x509.Expired:
		return fmt.Errorf("%w: renew the server's certificate, or set this host's clock", err)
	case refusesClientCertificate(text) && t.TLSCert == "":
		return fmt.Errorf("%w: set tls_cert and tls_key", err)
	case refusesClientCertificate(text):
		return fmt.Errorf("%w: check tls_cert", err)
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w: write http:// in %s", err, c.config.URLOption)
	default:
		return err
	}
}

// refusesClientCertificate reports whether the text of an error is a TLS alert by which a
// server asks for a client certificate, or refuses the one that it got.
func refusesClientCertificate(text string) bool {
	_, alert, ok := strings.Cut(text, "remote error: tls: ")
	return ok && slices.Contains([]string{
		"certificate required", "bad certificate", "expired certificate", "revoked certificate", "unknown certificate", "unknown certificate authority",
	}, alert)
}

// target returns the URL of a request.
func (s *Server) target(r *Request) string {
	if r.Path == "" && r.Query == "" {
		return s.URL.String()
	}
	u := *s.URL
	if r.Path != "" {
		u = *u.JoinPath(r.Path)
	}
	u.RawQuery = strings.Trim(u.RawQuery+"&"+r.Query, "&")
	return u.String()
}

// Close closes the idle connections.
func (c *Client) Close() error {
	c.transport.close()
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
	_, partly := errors.AsType[*plugin.PartialError](err)
	return partly || errors.Is(err, plugin.ErrRejected) || errors.Is(err, plugin.ErrTooLarge)
}

// JoinFailures returns the failures of all servers as one error. If every server said
// when to retry, the shortest wait counts; otherwise the agent decides.
func JoinFailures(failures ...error) error {
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
