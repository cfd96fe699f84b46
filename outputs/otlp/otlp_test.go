package otlp

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest"
)

func TestConformance(t *testing.T) {
	r := newReceiver(t)
	o := Defaults()
	o.MetricsURL, o.LogsURL = r.server.URL+"/v1/metrics", r.server.URL+"/v1/logs"
	plugintest.Pusher(t, Plugin, &o)
}

// mixed returns records of points and events in turn: point 1, event 1, point 2, ...
func mixed(t testing.TB, out *output, from, to int) (records [][]byte) {
	for i := from; i < to; i++ {
		p := gauge("x", int64(i))
		p.Time = at.Add(time.Duration(i) * time.Second)
		records = append(records, encode(t, out, p, event(int64(i)))...)
	}
	return records
}

func xs(from, to int) (values []string) {
	for i := from; i < to; i++ {
		values = append(values, fmt.Sprint("x ", i))
	}
	return values
}

func opened(from, to int) (bodies []string) {
	for i := from; i < to; i++ {
		bodies = append(bodies, fmt.Sprintf("opened 0.0.0.0:80 public nginx[%d] www-data", 17+i))
	}
	return bodies
}

func wantStored(t *testing.T, metrics, logs *receiver, values, bodies []string) {
	t.Helper()
	if diff := cmp.Diff(values, metrics.values()); diff != "" {
		t.Errorf("stored metrics (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(bodies, logs.bodies()); diff != "" {
		t.Errorf("stored logs (-want +got):\n%s", diff)
	}
}

func TestPointsAndEventsGoToTheirURLs(t *testing.T) {
	metrics, logs := newReceiver(t), newReceiver(t)
	out, _ := newOutput(t, metrics, logs, nil)
	if err := out.Push(t.Context(), mixed(t, out, 0, 3)); err != nil {
		t.Fatal(err)
	}
	wantStored(t, metrics, logs, xs(0, 3), opened(0, 3))
	for _, r := range []*receiver{metrics, logs} {
		if r.requests() != 1 {
			t.Errorf("%d requests, want 1", r.requests())
		}
		for name, want := range map[string]string{"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip", "User-Agent": "sockwatch"} {
			if got := r.headers[0].Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
}

// An empty URL sends nothing of its kind. Records of that kind that were queued before a
// reload are rejected.
func TestAKindWithoutURLIsNotSent(t *testing.T) {
	r := newReceiver(t)
	both, _ := newOutput(t, r, r, nil)
	records := mixed(t, both, 0, 1)
	for _, test := range []struct {
		name          string
		metrics, logs *receiver
		values        []string
		bodies        []string
		rejected      int
	}{
		{name: "only metrics", metrics: newReceiver(t), values: xs(0, 1), rejected: 1},
		{name: "only logs", logs: newReceiver(t), bodies: opened(0, 1), rejected: 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, _ := newOutput(t, test.metrics, test.logs, nil)
			p, e := gauge("x", 0), event(0)
			point, err1 := out.Encode(nil, &p)
			ended, err2 := out.EncodeEnded(nil, &p, at)
			log, err3 := out.EncodeEvent(nil, &e)
			if err := errors.Join(err1, err2, err3); err != nil {
				t.Fatal(err)
			}
			if (len(point) > 0) != (test.metrics != nil) || (len(ended) > 0) != (test.metrics != nil) || (len(log) > 0) != (test.logs != nil) {
				t.Errorf("records of %d, %d and %d bytes", len(point), len(ended), len(log))
			}
			err := out.Push(t.Context(), records)
			rejected, ok := errors.AsType[*plugin.RejectedError](err)
			if !ok || !rejected.OthersStored || len(rejected.Records) != 1 || rejected.Records[test.rejected] != errNoURL {
				t.Errorf("Push = %#v, want record %d rejected", err, test.rejected)
			}
			if test.metrics != nil {
				wantStored(t, test.metrics, &receiver{}, test.values, nil)
			} else {
				wantStored(t, &receiver{}, test.logs, nil, test.bodies)
			}
		})
	}
}

// While one server is down, the other gets every record once, however often Push is
// repeated, and also records that were queued later.
func TestOneKindGoesOnWhileTheOtherFails(t *testing.T) {
	for _, failing := range []string{"metrics", "logs"} {
		t.Run(failing, func(t *testing.T) {
			metrics, logs := newReceiver(t), newReceiver(t)
			down := map[string]*receiver{"metrics": metrics, "logs": logs}[failing]
			out, _ := newOutput(t, metrics, logs, nil)
			down.respond(status(http.StatusServiceUnavailable, "starting"))
			for n := range 4 {
				err := out.Push(t.Context(), mixed(t, out, 0, 1+n/2))
				if want := failing + ": " + down.server.URL + ": 503 Service Unavailable: starting"; err == nil || err.Error() != want {
					t.Fatalf("Push = %v, want %s", err, want)
				}
			}
			if down == metrics {
				wantStored(t, metrics, logs, nil, opened(0, 2))
			} else {
				wantStored(t, metrics, logs, xs(0, 2), nil)
			}
			down.respond(nil)
			if err := out.Push(t.Context(), mixed(t, out, 0, 3)); err != nil {
				t.Fatal(err)
			}
			wantStored(t, metrics, logs, xs(0, 3), opened(0, 3))
			if len(out.progress.results) != 0 {
				t.Errorf("%d results are still remembered", len(out.progress.results))
			}
			if err := out.Push(t.Context(), mixed(t, out, 3, 4)); err != nil {
				t.Fatal(err)
			}
			wantStored(t, metrics, logs, xs(0, 4), opened(0, 4))
		})
	}
}

// A server that fails before the other one got anything does not keep the events that come
// later from it: the agent must push new records, too. Two URLs of one server fail together.
func TestFailureOfOneServerIsProgressOfTheOther(t *testing.T) {
	tests := []struct {
		name    string
		oneHost bool
		want    bool
	}{
		{name: "two servers", want: true},
		{name: "one server", oneHost: true, want: false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			metrics, logs := newReceiver(t), newReceiver(t)
			if tt.oneHost {
				logs = metrics
			}
			out, _ := newOutput(t, metrics, logs, nil)
			metrics.respond(status(http.StatusServiceUnavailable, "starting"))
			err := out.Push(t.Context(), encode(t, out, gauge("x", 1)))
			if _, got := errors.AsType[*plugin.ProgressError](err); err == nil || got != tt.want {
				t.Errorf("error %v, ProgressError %t, want %t", err, got, tt.want)
			}
		})
	}
}

// A server that hangs takes the time of its own kind only.
func TestAServerThatHangsDoesNotKeepTheOtherKind(t *testing.T) {
	metrics, logs := newReceiver(t), newReceiver(t)
	out, _ := newOutput(t, metrics, logs, nil)
	answer := make(chan struct{})
	metrics.respond(func(w http.ResponseWriter, r *http.Request) {
		<-answer
		status(http.StatusServiceUnavailable, "starting")(w, r)
	})
	result := make(chan error, 1)
	go func() { result <- out.Push(t.Context(), mixed(t, out, 0, 1)) }()
	for end := time.Now().Add(time.Minute); len(logs.bodies()) == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	wantStored(t, metrics, logs, nil, opened(0, 1))
	close(answer)
	if err, want := <-result, "metrics: "+metrics.server.URL+": 503 Service Unavailable: starting"; err == nil || err.Error() != want {
		t.Errorf("Push = %v, want %s", err, want)
	}
}

// The server's wait applies to its kind. With both kinds down, the agent waits for the first.
func TestRetryAfterAppliesToOneKind(t *testing.T) {
	metrics, logs := newReceiver(t), newReceiver(t)
	out, _ := newOutput(t, metrics, logs, nil)
	later := func(seconds string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", seconds)
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}
	push := func(from, to int) error { return out.Push(t.Context(), mixed(t, out, from, to)) }
	wait := func(err error) time.Duration {
		after, ok := errors.AsType[*plugin.RetryAfterError](err)
		if !ok {
			return 0
		}
		return after.Wait
	}

	logs.respond(later("300"))
	err := push(0, 1)
	if want := "logs: " + logs.server.URL + ": 429 Too Many Requests"; err == nil || err.Error() != want || wait(err) != 0 {
		t.Errorf("Push = %v, %v, want %s without a wait", err, wait(err), want)
	}
	if err := push(0, 2); err == nil || wait(err) != 0 {
		t.Errorf("the second Push = %v, want an error without a wait", err)
	}
	if logs.requests() != 1 {
		t.Errorf("%d requests of logs within the wait, want 1", logs.requests())
	}
	wantStored(t, metrics, logs, xs(0, 2), nil)

	metrics.respond(later("600"))
	if got := wait(push(0, 3)); got <= 0 || got > 5*time.Minute {
		t.Errorf("with both down the wait is %v, want at most 5m", got)
	}
	logs.respond(nil)
	out.logs.refusal.until = time.Now()
	if got := wait(push(0, 3)); got != 0 {
		t.Errorf("with only metrics down the wait is %v, want none", got)
	}
	metrics.respond(nil)
	out.metrics.refusal.until = time.Now()
	if err := push(0, 3); err != nil {
		t.Error(err)
	}
	wantStored(t, metrics, logs, xs(0, 3), opened(0, 3))
}

// With one kind only, the agent waits as long as the server asks for.
func TestRetryAfterOfTheOnlyKindIsTheAgents(t *testing.T) {
	metrics := newReceiver(t)
	out, _ := newOutput(t, metrics, nil, nil)
	metrics.respond(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	err := out.Push(t.Context(), encode(t, out, gauge("x", 1)))
	if after, ok := errors.AsType[*plugin.RetryAfterError](err); !ok || after.Wait != 7*time.Second {
		t.Errorf("Push = %#v, want a wait of 7s", err)
	}
}

// A reload or a restart in the middle of an outage sends nothing twice, unless another server
// gets it.
func TestAReplacedOutputKnowsWhatWasStored(t *testing.T) {
	for _, test := range []struct {
		name     string
		stateDir string // "": none
		reload   bool   // the new output inherits from the old one
		moved    bool   // the new output sends metrics to another server
		again    bool   // the same server gets the metrics twice
	}{
		{name: "reload", reload: true},
		{name: "reload with another URL", reload: true, moved: true},
		{name: "restart", stateDir: t.TempDir()},
		{name: "restart with another URL", stateDir: t.TempDir(), moved: true},
		{name: "restart without a state directory", again: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			metrics, logs := newReceiver(t), newReceiver(t)
			old, _ := newOutputIn(t, test.stateDir, metrics, logs, nil)
			logs.respond(status(http.StatusBadGateway, ""))
			for to := range 2 {
				if err := old.Push(t.Context(), mixed(t, old, 0, to+1)); err == nil {
					t.Fatal("Push has not failed")
				}
			}
			logs.respond(nil)
			if test.moved {
				metrics = newReceiver(t)
			}
			out, log := newOutputIn(t, test.stateDir, metrics, logs, nil)
			if test.reload {
				out.InheritFrom(old)
			}
			if err := out.Push(t.Context(), mixed(t, out, 0, 3)); err != nil {
				t.Fatal(err)
			}
			want := xs(0, 3)
			if test.again {
				want = append(xs(0, 2), want...)
			}
			wantStored(t, metrics, logs, want, opened(0, 3))
			if log.Len() > 0 {
				t.Errorf("log: %s", log)
			}
			if test.stateDir == "" || test.moved {
				return
			}
			if left, err := os.ReadDir(test.stateDir); err != nil || len(left) > 0 {
				t.Errorf("files when nothing waits: %v, %v", left, err)
			}
		})
	}
}

// A rejected record is not lost in a restart: it is sent again, and its reason is known again.
func TestARestartKeepsRejectedRecords(t *testing.T) {
	metrics, logs := newReceiver(t), newReceiver(t)
	dir := t.TempDir()
	old, _ := newOutputIn(t, dir, metrics, logs, nil)
	logs.respond(status(http.StatusBadGateway, ""))
	metrics.respond(status(http.StatusBadRequest, "out of bounds"))
	records := mixed(t, old, 0, 1)
	if err := old.Push(t.Context(), records); err == nil {
		t.Fatal("Push has not failed")
	}
	logs.respond(nil)
	out, _ := newOutputIn(t, dir, metrics, logs, nil)
	err := out.Push(t.Context(), records)
	rejected, ok := errors.AsType[*plugin.RejectedError](err)
	if !ok || len(rejected.Records) != 1 || !rejected.OthersStored {
		t.Errorf("Push = %v, want one rejected record", err)
	}
	wantStored(t, metrics, logs, nil, opened(0, 1))
}

// A file that cannot be used is logged once, and changes nothing else.
func TestAnUnusableFileOfWhatWasStoredIsLogged(t *testing.T) {
	metrics, logs := newReceiver(t), newReceiver(t)
	dir := t.TempDir()
	out, log := newOutputIn(t, dir, metrics, logs, nil)
	if err := os.MkdirAll(filepath.Join(dir, "otlp.stored", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	logs.respond(status(http.StatusBadGateway, ""))
	for to := range 2 {
		if err := out.Push(t.Context(), mixed(t, out, 0, to+1)); err == nil {
			t.Fatal("Push has not failed")
		}
	}
	logs.respond(nil)
	if err := out.Push(t.Context(), mixed(t, out, 0, 2)); err != nil {
		t.Fatal(err)
	}
	wantStored(t, metrics, logs, xs(0, 2), opened(0, 2))
	if n := strings.Count(log.String(), "cannot keep what one URL has stored"); n != 1 {
		t.Errorf("%d warnings: %s", n, log)
	}
}

// A request that has to be split waits while the other kind is down: bisecting now would
// narrow the window to records of the kind that is down.
func TestTemporaryFailurePrecedesASplit(t *testing.T) {
	metrics, logs := newReceiver(t), newReceiver(t)
	out, _ := newOutput(t, metrics, logs, nil)
	for _, test := range []struct {
		name          string
		metrics, logs int
		want          error
	}{
		{name: "metrics rejected", metrics: http.StatusBadRequest, logs: http.StatusServiceUnavailable},
		{name: "logs too large", metrics: http.StatusServiceUnavailable, logs: http.StatusRequestEntityTooLarge},
		{name: "both split", metrics: http.StatusBadRequest, logs: http.StatusRequestEntityTooLarge, want: plugin.ErrRejected},
		{name: "only one fails", metrics: http.StatusOK, logs: http.StatusRequestEntityTooLarge, want: plugin.ErrTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			metrics.respond(status(test.metrics, ""))
			logs.respond(status(test.logs, ""))
			err := out.Push(t.Context(), mixed(t, out, 0, 2))
			if err == nil || mustSplit(err) != (test.want != nil) || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("Push = %v, want %v", err, test.want)
			}
		})
	}
}

// The agent recovers panics of Push only in the goroutine that it calls it in.
func TestAPanicReachesTheCallerOfPush(t *testing.T) {
	for _, test := range []struct {
		name          string
		first, second func() error
	}{
		{name: "first", first: func() error { panic("x") }, second: func() error { return nil }},
		{name: "second", first: func() error { return nil }, second: func() error { panic("x") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			defer func() {
				if got := recover(); got != "x" {
					t.Errorf("recovered %v, want x", got)
				}
			}()
			atOnce(test.first, test.second)
		})
	}
}
