// Package prometheus is the output prometheus: an endpoint that serves the latest
// batches as metrics.
//
// The files follow a scrape. This one binds (address.go, activation.go), serves and routes.
// connections.go limits the clients, and webconfig.go reads what exporter-toolkit needs for
// TLS and passwords. scrape.go serves the metrics in the form that negotiate.go chooses:
// page.go turns the board into metric families (source.go those of one source, dropped.go
// counts what does not fit), and scrape.go encodes them together with the metrics of
// metrics.go. sd.go, landing.go and livepage.go serve the other pages. Package respond writes
// the responses.
package prometheus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/exporter-toolkit/web"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/livepage"
	"sockwatch/outputs/internal/respond"
)

// Plugin is the kind of output [[outputs.prometheus]].
var Plugin = plugin.DefineEndpoint(plugin.Definition[Options, plugin.Endpoint]{
	Name:     "prometheus",
	Descs:    descs(),
	Defaults: Defaults,
	Example:  Example,
	New:      newEndpoint,
	Sample:   plugin.Sample{Active: true},
	Telegraf: plugin.Telegraf{
		Names: []string{"prometheus_client"},
		Options: map[string]string{
			"basic_password":      `write web_config_file = "FILE", with basic_auth_users in it`,
			"basic_username":      `write web_config_file = "FILE", with basic_auth_users in it`,
			"collectors_exclude":  "leave it out: the metrics process_ and go_ are always shown",
			"expiration_interval": "leave it out: a series ends with the first gather that no longer has it",
			"export_timestamp":    "leave it out: samples have no timestamps",
			"ip_range":            `listen on an address that only these clients reach, or write web_config_file = "FILE"`,
			"metric_version":      "leave it out: there is one format",
			"string_as_label":     "leave it out: strings are not shown",
			"tls_cert":            `write web_config_file = "FILE", with tls_server_config in it`,
			"tls_key":             `write web_config_file = "FILE", with tls_server_config in it`,
		},
	},
})

// Limits on clients. A scrape can wait maxGather for a gather, then
// respond.WriteTimeout for its client. Idle connections outlive a usual scrape interval, so that a scraper need not
// open a new one for each scrape.
const (
	readHeaderTimeout = 10 * time.Second
	bodyTimeout       = time.Second // for the body of a request that is refused
	maxGather         = 2 * time.Minute
	idleTimeout       = 2 * time.Minute
	stopTimeout       = 900 * time.Millisecond // for requests in flight at a stop: Serve must return within a second
	maxHeaderBytes    = 16 << 10
	maxConnections    = 256
	maxRequests       = 16        // answers being made at the same time
	maxUnread         = 128 << 20 // bytes of answers that clients have not read yet
)

// An endpoint is one [[outputs.prometheus]].
type endpoint struct {
	opts      Options
	env       plugin.Env
	own       *ownMetrics
	cache     cache
	web       *webConfig
	watch     *watch
	responder *respond.Responder
	listeners []net.Listener
}

func newEndpoint(o Options, env plugin.Env) (plugin.Endpoint, error) {
	e := &endpoint{opts: o, env: env, own: newOwnMetrics(), web: newWebConfig(o.WebConfigFile)}
	e.responder = respond.New(respond.Options{Log: env.Log, MaxRequests: maxRequests, MaxUnread: maxUnread, Refused: e.own.refused.Inc})
	e.watch = newWatch(e.checkListening)
	return e, nil
}

// Listen binds every address, or none.
func (e *endpoint) Listen(ctx context.Context) error {
	if err := e.web.validate(ctx); err != nil {
		return err
	}
	e.warnReadable()
	for _, s := range e.opts.Listen {
		if err := e.bind(ctx, s); err != nil {
			return errors.Join(err, e.Close())
		}
	}
	e.logAddresses()
	return nil
}

func (e *endpoint) bind(ctx context.Context, s string) error {
	a, err := parseAddress(s)
	if err != nil {
		return plugin.Invalid("listen", "%w", err)
	}
	if a.network == "systemd" {
		passed, err := passedListeners(passedFiles(), a.address)
		e.listeners = append(e.listeners, passed...)
		return err
	}
	l, err := e.env.Listen(ctx, a.network, a.address)
	if err != nil {
		return err
	}
	e.listeners = append(e.listeners, l)
	return nil
}

// Close releases what Listen bound, if Serve is never called.
func (e *endpoint) Close() error {
	var errs []error
	for _, l := range e.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	e.listeners = nil
	return errors.Join(errs...)
}

// Serve answers on every address until ctx is done. Then it gives the requests in flight
// stopTimeout to finish. If one address fails, all of them stop.
func (e *endpoint) Serve(ctx context.Context, board plugin.Board) error {
	defer e.Close()
	var watching sync.WaitGroup
	defer watching.Wait()
	watchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() { e.watch.run(watchCtx) })
	connections := newConnections(maxConnections, func() error { return e.web.readable(ctx) })
	handler, endStreams := e.handler(board)
	servers := make([]*http.Server, len(e.listeners))
	ended := make(chan error, len(e.listeners))
	for i, l := range e.listeners {
		servers[i] = e.newServer(handler)
		servers[i].ConnState = connections.observe
		go func() { ended <- e.serve(servers[i], connections.limit(l)) }()
	}
	running, err := len(servers), error(nil)
	select {
	case <-ctx.Done():
	case err = <-ended:
		running--
	}
	endStreams()
	stop(servers)
	for range running {
		if late := <-ended; ctx.Err() == nil {
			err = errors.Join(err, late)
		}
	}
	return err
}

// serve runs one server. It returns nil if the server was stopped.
func (e *endpoint) serve(s *http.Server, l net.Listener) error {
	defer l.Close()
	err := error(nil)
	if file := e.opts.WebConfigFile; file != "" {
		s.BaseContext = func(net.Listener) context.Context { // called after exporter-toolkit has wrapped the handler
			s.Handler = e.web.guard(s.Handler, e.watch.checkSoon)
			return context.Background()
		}
		err = web.Serve(l, s, &web.FlagConfig{WebConfigFile: &file}, slog.New(e.logHandler()))
	} else {
		err = s.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", l.Addr(), err)
}

// newServer returns the server for one address. Each address needs its own, because
// exporter-toolkit wraps the handler of the server that it is given.
func (e *endpoint) newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		// Longer than a scrape takes. A body is waited for that long only if the client does
		// not have the password. A stream of the live page outlives both timeouts.
		ReadTimeout:    maxGather + respond.WriteTimeout,
		WriteTimeout:   maxGather + respond.WriteTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       slog.NewLogLogger(e.logHandler(), slog.LevelError),
	}
}

// logHandler returns the handler for what net/http and exporter-toolkit log.
func (e *endpoint) logHandler() slog.Handler {
	return demotingHandler{e.env.Log.Handler(), e.watch.checkSoon}
}

// logAddresses logs what is served where, and warns if anyone who can reach this host can read it.
func (e *endpoint) logAddresses() {
	var all, open []string
	for _, l := range e.listeners {
		all = append(all, l.Addr().String())
		if !isLoopback(l.Addr()) {
			open = append(open, l.Addr().String())
		}
	}
	served := "serving metrics"
	if e.opts.Page {
		served = "serving metrics and the live page"
	}
	e.env.Log.Info(served, "listen", strings.Join(all, ", "))
	if len(open) > 0 && e.opts.WebConfigFile == "" {
		e.env.Log.Warn("anyone who can reach this address can read what listens here and who owns it; "+
			"to restrict that, set web_config_file (TLS, basic auth) or a loopback address", "listen", strings.Join(open, ", "))
	}
}

func stop(servers []*http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(func() {
			if s.Shutdown(ctx) != nil {
				s.Close()
			}
		})
	}
	wg.Wait()
}

// handler routes requests without http.ServeMux, because the configured path is not a
// pattern. The returned function ends the streams of the live page.
func (e *endpoint) handler(board plugin.Board) (_ http.Handler, endStreams func()) {
	page := sync.OnceValue(func() *livepage.Page { return e.newPage(board) }) // nobody looks at most hosts
	endStreams = func() {
		if e.opts.Page {
			page().End()
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, "only GET and HEAD")
			return
		case r.ContentLength != 0:
			refuse(w, http.StatusRequestEntityTooLarge, "no body is expected")
			return
		}
		switch path := r.URL.Path; {
		case path == e.opts.Path:
			e.scrape(w, r, board)
		case path == sdPath:
			e.responder.Respond(w, r, func() (*respond.Response, error) { return discover(r, board) })
		case path == healthyPath:
			io.WriteString(w, "sockwatch is healthy.\n")
		case path == readyPath:
			ready(w, board)
		case e.opts.Page && livepage.Serves(path):
			page().ServeHTTP(w, r)
		case path == landingPath:
			e.responder.Respond(w, r, func() (*respond.Response, error) { return e.land(board) })
		default:
			http.NotFound(w, r)
		}
	}), endStreams
}

// refuse answers and closes the connection. net/http first reads some of the request's
// body; the client gets bodyTimeout to send it.
func refuse(w http.ResponseWriter, status int, text string) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	w.Header().Set("Connection", "close")
	http.Error(w, text, status)
}

// ready answers 503 until every input has gathered, and while the last gather of any
// input has failed.
func ready(w http.ResponseWriter, board plugin.Board) {
	failed := failedSources(board)
	switch {
	case len(board.Latest()) == 0:
		respond.WriteError(w, errNothingGathered)
	case len(failed) > 0:
		respond.ServiceUnavailable(w, "last gather failed: "+strings.Join(failed, ", "))
	default:
		io.WriteString(w, "sockwatch is ready.\n")
	}
}

// failedSources returns the names of the sources whose last gather failed.
func failedSources(board plugin.Board) (names []string) {
	for _, s := range board.Sources() {
		if s.Err != nil {
			names = append(names, s.Name)
		}
	}
	return names
}
