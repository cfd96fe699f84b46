package tcplisten

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sockwatch/agent/plugin"
	hosts "sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/users"
)

// TestFirstSeen is absent for what stood at the first gather, goes on through a
// restart of the service, and through one of the agent where there is a state
// directory.
func TestFirstSeen(t *testing.T) {
	job := task{Name: []byte("service"), Listen: []listenTask{{Addr: "127.0.0.1"}}}
	_, stood := start(t, job)
	env := plugin.Env{Name: "tcp_listen-x", StateDir: t.TempDir()}
	now := time.Unix(2_000_000_000, 0)
	in, log := openLogging(t, Defaults(), env)
	if got := firstSeen(t, in, stood[0], now); got != "absent" {
		t.Errorf("what stood before was first seen %s", got)
	}
	child, opened := start(t, job)
	now = now.Add(10 * time.Second)
	if got := firstSeen(t, in, opened[0], now); got != "2000000010" {
		t.Errorf("what opened was first seen %s", got)
	}
	if got := firstSeen(t, in, stood[0], now); got != "absent" {
		t.Errorf("what stood before was then first seen %s", got)
	}

	end(child)
	now = now.Add(10 * time.Second)
	if _, err := in.(*input).gather(context.Background(), now); err != nil {
		t.Fatal(err)
	}
	job.Listen[0].Port = opened[0]
	again, _ := start(t, job)
	now = now.Add(10 * time.Second)
	if got := firstSeen(t, in, opened[0], now); got != "2000000010" {
		t.Errorf("the restarted service was first seen %s", got)
	}
	closeInput(t, in)

	in, _ = openLogging(t, Defaults(), env)
	now = now.Add(time.Hour)
	if got := firstSeen(t, in, opened[0], now); got != "2000000010" {
		t.Errorf("after a restart of the agent it was first seen %s", got)
	}
	if got := firstSeen(t, in, stood[0], now); got != "absent" {
		t.Errorf("after a restart of the agent, what stood before: %s", got)
	}

	end(again)
	for range 2 {
		now = now.Add(10 * time.Second)
		if _, err := in.(*input).gather(context.Background(), now); err != nil {
			t.Fatal(err)
		}
	}
	start(t, job)
	now = now.Add(10 * time.Second)
	if got := firstSeen(t, in, opened[0], now); got != strconv.FormatInt(now.Unix(), 10) {
		t.Errorf("after it was away for long it was first seen %s", got)
	}
	if log.Len() > 0 && os.Geteuid() == 0 {
		t.Errorf("logged: %s", log)
	}
}

// firstSeen gathers and returns the field of the listener on a port, or "absent".
func firstSeen(t *testing.T, in plugin.Input, port int, now time.Time) string {
	t.Helper()
	b, err := in.(*input).gather(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	p := one(t, b, port)
	if v, ok := p.Field("first_seen_time_seconds"); ok {
		return v.String()
	}
	return "absent"
}

// TestFirstSeenBySuccessor goes on through a reload that changes the input, without
// a state directory, and also where the successor does not find the owners in time.
func TestFirstSeenBySuccessor(t *testing.T) {
	job := task{Name: []byte("service"), Listen: []listenTask{{Addr: "127.0.0.1"}}}
	_, stood := start(t, job)
	var in plugin.Input = open(t, Defaults())
	now := time.Unix(2_000_000_000, 0)
	gatherLater := func() {
		t.Helper()
		now = now.Add(10 * time.Second)
		if _, err := in.(*input).gather(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(port int, want string) {
		t.Helper()
		if got := firstSeen(t, in, port, now); got != want {
			t.Errorf("first seen %s, expected %s", got, want)
		}
	}
	succeed := func(change func(*Options)) {
		t.Helper()
		o := in.(*input).options
		change(&o)
		closeInput(t, in)
		next := open(t, o)
		next.(plugin.Inheritor).InheritFrom(in)
		in = next
		now = now.Add(10 * time.Second)
	}
	gatherLater()
	service, opened := start(t, job)
	gatherLater()
	const first = "2000000020"
	expect(opened[0], first)
	end(service)
	job.Listen[0].Port = opened[0]
	service, _ = start(t, job) // another socket of the identity that was first seen then
	gatherLater()

	succeed(func(o *Options) { o.Cmdline = true })
	expect(opened[0], first)
	expect(stood[0], "absent")
	job.Listen[0].Port = 0
	_, fresh := start(t, job)
	succeed(func(o *Options) { o.MaxListeners++ })
	expect(fresh[0], strconv.FormatInt(now.Unix(), 10))

	// A search that is cut leaves the owners unknown, and with them the identity.
	succeed(func(o *Options) { o.OwnerVerify *= 2 })
	for range 3 {
		now = now.Add(10 * time.Second)
		b := gatherCut(t, in.(*input), now)
		if p := one(t, b, stood[0]); b.Partial == "" || p.Tag("owner") != "pending" {
			t.Errorf("partial %q, %s", b.Partial, p.Series())
		} else if since, ok := p.Field("first_seen_time_seconds"); ok {
			t.Errorf("while its owner is searched it was first seen %v", since)
		}
	}
	expect(stood[0], "absent")
	expect(opened[0], first)

	// It never saw these: whether they stood before nobody knows.
	_, elsewhere := start(t, task{Listen: []listenTask{{Addr: "127.0.0.2"}}})
	succeed(func(o *Options) { o.Backend = backendProcfs })
	expect(elsewhere[0], "absent")
	expect(opened[0], first)

	end(service)
	gatherLater()
	gatherLater()
	if known := in.(*input).sightings.known; len(known) > len(in.(*input).groups.sorted) {
		t.Errorf("%d are remembered of %d", len(known), len(in.(*input).groups.sorted))
	}
}

// TestFirstSeenDamaged goes on without a file that cannot be read, and says so.
func TestFirstSeenDamaged(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"damaged":       {`{"version":1,"first_seen":{"a`, "unexpected EOF"},
		"other version": {`{"version":2}`, "version 2, expected 1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "tcp_listen.first_seen.json"), []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
			in, log := openLogging(t, Defaults(), plugin.Env{Name: pointListener, StateDir: dir})
			gather(t, in)
			if !strings.Contains(log.String(), test.want) {
				t.Errorf("logged %q, expected %q", log, test.want)
			}
		})
	}
}

// TestFirstSeenOfHeirs goes on through a reload that comes before the first gather
// after another.
func TestFirstSeenOfHeirs(t *testing.T) {
	_, stood := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	now := time.Unix(2_000_000_000, 0)
	in := open(t, Defaults()).(*input)
	if got := firstSeen(t, in, stood[0], now); got != "absent" {
		t.Errorf("first seen %s", got)
	}
	for range 3 {
		next := open(t, Defaults()).(*input)
		closeInput(t, in)
		next.InheritFrom(in)
		in = next
	}
	p := one(t, gatherCut(t, in, now.Add(time.Minute)), stood[0])
	if since, ok := p.Field("first_seen_time_seconds"); ok {
		t.Errorf("it is new, first seen %v", since)
	}
}

// TestFirstSeenWithoutUsers goes on though the service that knows the names of users
// is not up when the agent starts.
func TestFirstSeenWithoutUsers(t *testing.T) {
	dir, proc := t.TempDir(), t.TempDir()
	passwd := filepath.Join(proc, "1/root/etc/passwd")
	known := func(up bool) {
		t.Helper()
		if err := os.RemoveAll(filepath.Dir(passwd)); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(passwd), 0o755); err != nil {
			t.Fatal(err)
		}
		if up {
			if err := os.WriteFile(passwd, fmt.Appendf(nil, "somebody:x:%d:0::/:\n", os.Getuid()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	known(true)
	restart := func(in *input) *input {
		if in != nil {
			closeInput(t, in)
		}
		in = open(t, Defaults()).(*input)
		in.env.StateDir = dir
		in.users = users.New(hosts.Host{Proc: proc}, 5*time.Minute)
		return in
	}
	now := time.Unix(2_000_000_000, 0)
	in := restart(nil)
	if _, err := in.gather(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	_, opened := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	for i := range 8 {
		now = now.Add(time.Minute)
		if got := firstSeen(t, in, opened[0], now); got != "2000000060" {
			t.Errorf("after %d minutes it was first seen %s", i, got)
		}
		if i == 0 {
			known(false)
			in = restart(in)
		}
		if i == 4 {
			known(true)
		}
	}
}

// TestFirstSeenHangs gathers while the disk of the state directory hangs, and writes
// what is known when it answers again.
func TestFirstSeenHangs(t *testing.T) {
	dir := t.TempDir()
	in := open(t, Defaults()).(*input)
	in.env.StateDir = dir
	now := time.Now()
	gatherAt := func(after time.Duration) {
		t.Helper()
		if _, err := in.gather(t.Context(), now.Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	gatherAt(0)
	answer := make(chan struct{})
	in.sightings.write = func(path string, text []byte) error {
		<-answer
		return writeFile(path, text)
	}
	for i := range 3 {
		start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
		gatherAt(time.Duration(i+1) * 2 * saveEvery)
	}
	close(answer)
	closeInput(t, in)
	known, err := openSightings(dir, in.env.Name)
	if err != nil || len(known.known) != 3 {
		t.Errorf("%d are remembered, expected 3; %v", len(known.known), err)
	}
}
