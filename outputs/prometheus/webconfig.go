package prometheus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v2"

	"sockwatch/outputs/internal/respond"
)

const (
	webConfigTimeout = 5 * time.Second  // for reading the web configuration and its certificates
	checkInterval    = time.Second      // at least, between two checks
	downInterval     = 10 * time.Second // between two checks while the endpoint is down
)

// A watch checks that the endpoint can answer when something suggests that it cannot: a
// failed connection, or a reload. exporter-toolkit reads its file and certificates for
// every connection, so a file that breaks on disk makes all connections fail.
type watch struct {
	check    func(context.Context) error
	report   func(error) // nil: nothing listens
	requests chan struct{}
}

func newWatch(check func(context.Context) error) *watch {
	return &watch{check: check, requests: make(chan struct{}, 1)}
}

// checkSoon makes run check the endpoint soon. It does not wait for that.
func (w *watch) checkSoon() {
	select {
	case w.requests <- struct{}{}:
	default:
	}
}

// run reports the outcome of each check until ctx is done. While the endpoint is down, it
// also checks every downInterval.
func (w *watch) run(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.requests:
		case <-again:
		}
		err := w.check(ctx)
		if ctx.Err() != nil {
			return
		}
		if w.report != nil {
			w.report(err)
		}
		again = nil
		if err != nil {
			again = time.After(downInterval)
		}
		select {
		case <-ctx.Done():
		case <-time.After(checkInterval):
		}
	}
}

// A demotingHandler logs errors at the level debug, because clients cause most of them
// (broken handshakes, closed connections). Each one makes the watch check the endpoint.
type demotingHandler struct {
	slog.Handler
	checkSoon func()
}

// Handle logs a record.
func (h demotingHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		h.checkSoon()
		if r.Level = slog.LevelDebug; !h.Enabled(ctx, r.Level) {
			return nil
		}
	}
	return h.Handler.Handle(ctx, r)
}

// A webConfig is the file of web_config_file, "" for none. exporter-toolkit opens it and
// the files that it names for every handshake and request, without a deadline. If a file
// hangs, each of those holds a thread. So readable reads the files first.
type webConfig struct {
	file string
	read func(file string) (users bool, err error) // readFiles

	mu      sync.Mutex
	reading *reading // the read in progress, or nil
}

// A reading is one read of all files. Callers that come while it is in progress share it.
type reading struct {
	late time.Time     // when callers stop waiting for it
	done chan struct{} // closed when it has ended
	// Valid after that:
	users bool // the file has passwords
	err   error
}

func newWebConfig(file string) *webConfig { return &webConfig{file: file, read: readFiles} }

// readable returns nil if the files can be opened without hanging, else the reason. Only
// one read is in progress at a time. While it hangs, for example on a stalled mount,
// every call returns an error, and returns it at once when the read is late.
func (c *webConfig) readable(ctx context.Context) error {
	_, err := c.passwords(ctx)
	return err
}

// passwords reports whether requests need a password. Its error is that of readable.
func (c *webConfig) passwords(ctx context.Context) (bool, error) {
	if c.file == "" {
		return false, nil
	}
	r := c.join()
	late := time.NewTimer(time.Until(r.late))
	defer late.Stop()
	select {
	case <-r.done:
		if r.err != nil {
			return false, fmt.Errorf("web_config_file %q: %w", c.file, r.err)
		}
		return r.users, nil
	case <-late.C:
		return false, c.lateError()
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// join returns the read in progress, or starts one.
func (c *webConfig) join() *reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reading != nil {
		return c.reading
	}
	r := &reading{late: time.Now().Add(webConfigTimeout), done: make(chan struct{})}
	c.reading = r
	go func() {
		r.users, r.err = c.read(c.file)
		c.mu.Lock()
		c.reading = nil
		c.mu.Unlock()
		close(r.done)
	}()
	return r
}

func (c *webConfig) lateError() error {
	return fmt.Errorf("web_config_file %q: it or a file that it names cannot be read within %v", c.file, webConfigTimeout)
}

// quoted matches what an error of the YAML parser quotes from the file, perhaps a secret.
var quoted = regexp.MustCompile("`[^`]*`")

// validate returns nil if the file can be used, else the reason.
func (c *webConfig) validate(ctx context.Context) error {
	if c.file == "" {
		return nil
	}
	if err := c.readable(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, webConfigTimeout, c.lateError())
	defer cancel()
	valid := make(chan error, 1)
	go func() { valid <- web.Validate(c.file) }()
	select {
	case err := <-valid:
		if err != nil {
			return fmt.Errorf("web_config_file %q: %s", c.file, quoted.ReplaceAllString(err.Error(), "`...`"))
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// guard returns a handler that calls next, exporter-toolkit's handler, only if the files
// are readable. It lets hasPassword know whether next asks for a password.
func (c *webConfig) guard(next http.Handler, checkSoon func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		passwords, err := c.passwords(r.Context())
		if err != nil {
			checkSoon()
			respond.ServiceUnavailable(w, "the web configuration cannot be read")
			return
		}
		if passwords {
			r = r.WithContext(context.WithValue(r.Context(), passwordKey{}, true))
		}
		next.ServeHTTP(w, r)
	})
}

type passwordKey struct{}

// hasPassword reports whether exporter-toolkit has checked the password of a request.
func hasPassword(r *http.Request) bool { return r.Context().Value(passwordKey{}) != nil }

// readFiles reads a web configuration and the files that it names, and reports whether
// there are passwords. It returns an error if one of the files is not a regular file.
// exporter-toolkit finds every other mistake, and does not hang on it.
func readFiles(file string) (users bool, err error) {
	text, err := readRegular(file)
	if err != nil {
		return false, err
	}
	var c web.Config
	if yaml.Unmarshal(text, &c) != nil {
		return false, nil
	}
	c.TLSConfig.SetDirectory(filepath.Dir(file))
	for _, name := range []string{c.TLSConfig.TLSCertPath, c.TLSConfig.TLSKeyPath, c.TLSConfig.ClientCAs} {
		if _, err := readRegular(name); err != nil {
			return false, err
		}
	}
	return len(c.Users) > 0, nil
}

// readRegular returns what it can read of a file. A FIFO, or anything else that is not a
// regular file, is an error and is not waited for.
func readRegular(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil // exporter-toolkit reports the same error
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	text, _ := io.ReadAll(f) // exporter-toolkit reports this error too
	return text, nil
}

// checkListening returns nil if the endpoint can answer, else the reason. If something has
// removed the file of a unix socket, it is created again.
func (e *endpoint) checkListening(ctx context.Context) error {
	errs := []error{e.web.validate(ctx)}
	for _, s := range e.opts.Listen {
		if a, err := parseAddress(s); err == nil && a.network == "unix" {
			l, err := e.env.Listen(ctx, a.network, a.address)
			if err == nil {
				err = l.Close()
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// ReportHealth implements plugin.HealthReporter.
func (e *endpoint) ReportHealth(report func(error)) { e.watch.report = report }

// Reload implements plugin.Reloader.
func (e *endpoint) Reload() { e.watch.checkSoon() }

// warnReadable warns if every user can read web_config_file, with its password hashes.
func (e *endpoint) warnReadable() {
	if info, err := os.Stat(e.web.file); err == nil && info.Mode().Perm()&0o004 != 0 {
		e.env.Log.Warn("every user of this host can read web_config_file; to fix that, run chmod o-r", "file", e.web.file)
	}
}
