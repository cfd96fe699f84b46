package tcplisten

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// TestMerging sums what is one identity: an SO_REUSEPORT group, a pre-forked one,
// and keeps another process at the same port apart.
func TestMerging(t *testing.T) {
	if elsewhere(t) {
		return
	}
	ip(t, "link set lo up")
	group := task{Name: []byte("group"), Workers: 2, Listen: []listenTask{
		{Addr: "127.0.0.1", Port: 4000, ReusePort: true, Backlog: 10},
		{Addr: "127.0.0.1", Port: 4000, ReusePort: true, Backlog: 20},
	}}
	first, _ := start(t, group)
	start(t, group)
	other, _ := start(t, task{Name: []byte("other"), Listen: []listenTask{{Addr: "127.0.0.1", Port: 4000, ReusePort: true, Backlog: 5}}})
	for range 7 { // of five sockets the kernel chooses one by one
		c, err := net.Dial("tcp4", "127.0.0.1:4000")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	points := at(gather(t, open(t, Defaults())), 4000)
	if len(points) != 2 {
		t.Fatalf("%d points", len(points))
	}
	backlog := 0
	for i, want := range []struct{ process, sockets, processes, limit, pid string }{
		{"group", "4", "6", "60", strconv.Itoa(first.Process.Pid)}, {"other", "1", "1", "5", strconv.Itoa(other.Process.Pid)},
	} {
		p := points[i]
		got := struct{ process, sockets, processes, limit, pid string }{p.Tag("process"), show(p, "sockets"), show(p, "processes"), show(p, "backlog_limit"), show(p, "pid")}
		if got != want {
			t.Errorf("got %+v, expected %+v", got, want)
		}
		backlog += field(t, p, "backlog")
	}
	if backlog != 7 {
		t.Errorf("%d connections wait, expected 7", backlog)
	}
}

func show(p metric.Point, key string) string {
	v, _ := p.Field(key)
	return v.String()
}

// TestSteadyAllocations makes nothing anew for listeners that have not changed.
func TestSteadyAllocations(t *testing.T) {
	if elsewhere(t, unix.CLONE_NEWPID) { // what others open and close is no steady host
		return
	}
	ip(t, "link set lo up")
	start(t, task{Listen: []listenTask{{Addr: "127.0.0.7", Port: 20000, Count: 500}}})
	options := Defaults()
	options.OwnerVerify, options.OwnerRefresh = 1<<62, 1<<62
	in := open(t, options)
	for range 4 {
		gather(t, in)
	}
	n := testing.AllocsPerRun(20, func() {
		if _, err := in.Gather(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if n > 250 { // about 60, however many the listeners
		t.Errorf("%v allocations for 500 listeners that stay", n)
	}
}

// TestEstablished counts connections by the listener that took them.
func TestEstablished(t *testing.T) {
	own, done := isolated(t)
	if done {
		return
	}
	if own {
		ip(t, "link set lo up")
	}
	for _, backend := range []string{backendNetlink, backendProcfs} {
		t.Run(backend, func(t *testing.T) {
			_, ports := start(t, task{Listen: []listenTask{
				{Addr: "127.0.0.1", Backlog: 9}, {Addr: "0.0.0.0", Backlog: 9}, {Addr: "::", Backlog: 9}, {Addr: "::1", Backlog: 9},
			}})
			for i, to := range [][]string{{"127.0.0.1", "127.0.0.1"}, {"127.0.0.1", "127.0.0.2", "127.0.0.3"}, {"127.0.0.1", "::1", "::1", "127.0.0.2"}, nil} {
				for _, address := range to {
					c, err := net.Dial("tcp", net.JoinHostPort(address, strconv.Itoa(ports[i])))
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
				}
			}
			options := Defaults()
			options.Established, options.Backend = true, backend
			in := open(t, options)
			for range 2 {
				b := gather(t, in)
				for i, want := range []int{2, 3, 4, 0} {
					if got := field(t, one(t, b, ports[i]), "established"); got != want {
						t.Errorf("%d connections to listener %d, expected %d", got, i, want)
					}
				}
			}
		})
	}
}

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
		next.(plugin.Successor).Succeed(in)
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
		next.Succeed(in)
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
	dir, up := t.TempDir(), true
	restart := func(in *input) *input {
		if in != nil {
			closeInput(t, in)
		}
		in = open(t, Defaults()).(*input)
		in.env.StateDir = dir
		in.users.names.lookup = func(context.Context, uint32) (string, error) {
			if !up {
				return "", errors.New("not up")
			}
			return "somebody", nil
		}
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
			up = false
			in = restart(in)
		}
		up = i > 3
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

// TestCustomPortExporter emits what the exporter emitted that this grows from.
func TestCustomPortExporter(t *testing.T) {
	child, ports := start(t, task{Name: []byte("a name"), Listen: []listenTask{{Addr: "127.0.0.1"}, {Addr: "::1"}, {Addr: "127.0.0.2"}}})
	options := Defaults()
	options.CustomPortExporter, options.ResolveAddresses = true, true
	in := open(t, options).(*input)
	in.exporter.names.lookup = func(_ context.Context, a netip.Addr) (string, error) {
		switch a.String() {
		case "127.0.0.1":
			return reverseName([]string{"localhost", "other"}, nil)
		case "::1":
			return reverseName([]string{"a-very-long-name.example."}, nil)
		}
		return reverseName(nil, &net.DNSError{Err: "no such host", Name: a.String(), IsNotFound: true})
	}
	b := gather(t, in)
	pid := strconv.Itoa(child.Process.Pid)
	for i, address := range []string{"localhost", "a-very-long-name.", "127.0.0.2"} {
		want := fmt.Sprintf(`custom_port_exporter{app="a name",host="testhost",pid="%s",port="tcp %s:%d",state="10"}`, pid, address, ports[i])
		found := false
		for _, p := range b.Points {
			if p.Series() == want && show(p, "value") == pid {
				found = true
			}
		}
		if !found {
			t.Errorf("no %s %s", want, pid)
		}
	}
}

// TestLookupsWaitForNobody gives no name until it is known, that name from then on,
// and none when it has been taken away.
func TestLookupsWaitForNobody(t *testing.T) {
	answer := make(chan bool)
	n := &lookups[int]{patience: time.Millisecond, again: 10 * time.Minute}
	n.lookup = func(ctx context.Context, key int) (string, error) {
		select {
		case <-answer:
			return "late", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	t.Cleanup(n.close)
	const key = 1
	now := time.Now()
	want := map[int]bool{key: true}
	if n.want(t.Context(), want, now) || n.of(key) != "" {
		t.Errorf("before there is an answer it is %s", n.of(key))
	}
	close(answer)
	soon(t, "the name is news", func() bool { return n.want(t.Context(), want, now) })
	if n.of(key) != "late" || n.want(t.Context(), want, now) {
		t.Errorf("it is %s", n.of(key))
	}
	n.patience = time.Hour
	n.lookup = func(context.Context, int) (string, error) { return "", errors.New("misbehaving") }
	if n.want(t.Context(), want, now.Add(time.Hour)) || n.of(key) != "late" {
		t.Errorf("in an outage it is %s", n.of(key))
	}
	n.lookup = func(context.Context, int) (string, error) { return "", nil }
	if !n.want(t.Context(), want, now.Add(2*time.Hour)) || n.of(key) != "" {
		t.Errorf("without a name it is %s", n.of(key))
	}
	n.want(t.Context(), nil, now.Add(3*time.Hour))
	if len(n.known) != 0 {
		t.Errorf("%d names are kept of keys that are gone", len(n.known))
	}
}

// TestUsersServiceHangs shows the number of a user until the service that knows
// the name answers, and does not wait for it.
func TestUsersServiceHangs(t *testing.T) {
	_, ports := start(t, task{Listen: []listenTask{{Addr: "127.0.0.1"}}})
	in := open(t, Defaults()).(*input)
	answer := make(chan bool)
	in.users.names.patience = time.Millisecond
	in.users.names.lookup = func(ctx context.Context, uid uint32) (string, error) {
		select {
		case <-answer:
			return "somebody", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	p := one(t, gather(t, in), ports[0])
	if got, want := p.Tag("user"), strconv.Itoa(os.Getuid()); got != want {
		t.Errorf("user %q while the service hangs, expected %q", got, want)
	}
	brief, cancel := context.WithCancel(t.Context())
	cancel()
	in.users.names.patience = time.Hour
	in.users.lookUp(brief, nil, time.Now().Add(time.Hour)) // does not wait longer than for that
	close(answer)
	in.users.names.patience = time.Millisecond
	soon(t, "the name", func() bool {
		p := one(t, gather(t, in), ports[0])
		return p.Tag("user") == "somebody"
	})
}

// TestUsersServiceTakesFewThreads has few lookups under way, whatever number of users
// there are to be asked for.
func TestUsersServiceTakesFewThreads(t *testing.T) {
	lookup := limitedTo(3, func(uint32) (string, error) { select {} })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := runtime.NumGoroutine()
	for uid := range uint32(100) {
		if _, err := lookup(ctx, uid); err != context.Canceled {
			t.Errorf("%v", err)
		}
	}
	if n := runtime.NumGoroutine() - before; n > 3 {
		t.Errorf("%d goroutines wait", n)
	}
}

// TestLookupUser tells a user without a name from one that could not be asked for.
func TestLookupUser(t *testing.T) {
	if name, err := lookupUser(0); name != "root" || err != nil {
		t.Errorf("user 0 is %q, %v", name, err)
	}
	if name, err := lookupUser(4_000_000_000); name != "" || err != nil {
		t.Errorf("user 4000000000 is %q, %v", name, err)
	}
}
