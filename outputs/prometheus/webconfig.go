package prometheus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
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

// A webConfig is web_config_file; "" is none.
type webConfig struct {
	file    string
	reading chan error // the outcome of a read that has not ended in time; else nil
}

// quoted is what an error of the YAML parser shows of the file: perhaps a secret.
var quoted = regexp.MustCompile("`[^`]*`")

// validate returns why the file cannot be used. A file that cannot be read in time,
// such as one on a stalled mount, is no longer waited for, and not read by another
// call before it has been read by this one. It must not be called concurrently.
func (c *webConfig) validate(ctx context.Context) error {
	if c.file == "" {
		return nil
	}
	if c.reading == nil {
		reading := make(chan error, 1)
		go func() { reading <- web.Validate(c.file) }()
		c.reading = reading
	}
	late := time.NewTimer(webConfigTimeout)
	defer late.Stop()
	select {
	case err := <-c.reading:
		c.reading = nil
		if err != nil {
			return fmt.Errorf("web_config_file %q: %s", c.file, quoted.ReplaceAllString(err.Error(), "`...`"))
		}
		return nil
	case <-late.C:
		return fmt.Errorf("web_config_file %q: it or what it names cannot be read within %v", c.file, webConfigTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
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
