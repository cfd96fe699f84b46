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
)

const (
	webConfigTimeout = 5 * time.Second  // to read the web configuration and its certificates
	checkInterval    = time.Second      // between two checks, however many connections fail
	downInterval     = 10 * time.Second // between two checks while the endpoint is down
)

// A watch finds out whether the endpoint can answer when there is reason to doubt it:
// a failed connection or a reload. exporter-toolkit reads its file and certificates
// for every connection, and one that breaks on disk makes all of them fail.
type watch struct {
	check  func(context.Context) error
	report func(error) // nil: nobody asks
	doubts chan struct{}
}

func newWatch(check func(context.Context) error) *watch {
	return &watch{check: check, doubts: make(chan struct{}, 1)}
}

// doubt has the endpoint checked soon. It does not wait for that.
func (w *watch) doubt() {
	select {
	case w.doubts <- struct{}{}:
	default:
	}
}

// run reports the outcome of each check until ctx is done. It checks again on its own
// while the endpoint is down.
func (w *watch) run(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.doubts:
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

// A doubtingHandler logs errors as debug messages: mostly they are what clients do
// wrong (broken handshakes, vanished peers). Each is a reason for a doubt.
type doubtingHandler struct {
	slog.Handler
	doubt func()
}

// Handle logs a record.
func (h doubtingHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		h.doubt()
		if r.Level = slog.LevelDebug; !h.Enabled(ctx, r.Level) {
			return nil
		}
	}
	return h.Handler.Handle(ctx, r)
}

// A webConfig is web_config_file; "" is none. exporter-toolkit opens it and the files
// that it names for every handshake and request, without a deadline: each of those that
// hangs holds a thread. So nothing gets as far as that before readable has read them.
type webConfig struct {
	file string
	read func(file string) error // readFiles

	mu      sync.Mutex
	reading *reading // the one under way; else nil
}

// A reading is one read of all files, for everybody who asks while it is under way.
type reading struct {
	late time.Time     // when it is no longer waited for
	done chan struct{} // closed when it has ended
	err  error         // valid then
}

func newWebConfig(file string) *webConfig { return &webConfig{file: file, read: readFiles} }

// readable returns why the files cannot be opened now without the risk to hang. There
// is one read at a time: while one hangs, as on a stalled mount, every call returns an
// error, at once when the read is late.
func (c *webConfig) readable(ctx context.Context) error {
	if c.file == "" {
		return nil
	}
	r := c.join()
	late := time.NewTimer(time.Until(r.late))
	defer late.Stop()
	select {
	case <-r.done:
		if r.err != nil {
			return fmt.Errorf("web_config_file %q: %w", c.file, r.err)
		}
		return nil
	case <-late.C:
		return c.lateError()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join returns the read that is under way, or a new one.
func (c *webConfig) join() *reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reading != nil {
		return c.reading
	}
	r := &reading{late: time.Now().Add(webConfigTimeout), done: make(chan struct{})}
	c.reading = r
	go func() {
		r.err = c.read(c.file)
		c.mu.Lock()
		c.reading = nil
		c.mu.Unlock()
		close(r.done)
	}()
	return r
}

func (c *webConfig) lateError() error {
	return fmt.Errorf("web_config_file %q: it or what it names cannot be read within %v", c.file, webConfigTimeout)
}

// quoted is what an error of the YAML parser shows of the file: perhaps a secret.
var quoted = regexp.MustCompile("`[^`]*`")

// validate returns why the file cannot be used.
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

// guard returns a handler that lets exporter-toolkit's answer a request if its file is
// readable.
func (c *webConfig) guard(next http.Handler, doubt func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.readable(r.Context()) != nil {
			doubt()
			serviceUnavailable(w, "the web configuration cannot be read")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// readFiles reads a web configuration and the files that it names. It returns an error
// if one is not a regular file. Every other mistake is exporter-toolkit's to find, which
// does not hang on it.
func readFiles(file string) error {
	text, err := readRegular(file)
	if err != nil {
		return err
	}
	var c web.Config
	if yaml.Unmarshal(text, &c) != nil {
		return nil
	}
	c.TLSConfig.SetDirectory(filepath.Dir(file))
	for _, name := range []string{c.TLSConfig.TLSCertPath, c.TLSConfig.TLSKeyPath, c.TLSConfig.ClientCAs} {
		if _, err := readRegular(name); err != nil {
			return err
		}
	}
	return nil
}

// readRegular returns what can be read of a file. It does not wait for the writer of a
// FIFO, nor read from one: that is an error, as is all that is not a regular file.
func readRegular(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil // exporter-toolkit meets the error too
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	text, _ := io.ReadAll(f) // likewise
	return text, nil
}

// checkListening returns why the endpoint cannot answer. It has the files of unix
// sockets made again that something else has removed.
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

// ReportHealth is plugin.HealthReporter's.
func (e *endpoint) ReportHealth(report func(error)) { e.watch.report = report }

// Reload is plugin.Reloader's.
func (e *endpoint) Reload() { e.watch.doubt() }

// warnReadable warns if web_config_file, with its password hashes, is open to everybody.
func (e *endpoint) warnReadable() {
	if info, err := os.Stat(e.web.file); err == nil && info.Mode().Perm()&0o004 != 0 {
		e.env.Log.Warn("web_config_file can be read by every user of this host; chmod o-r would mend that", "file", e.web.file)
	}
}
