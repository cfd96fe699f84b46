package tcplisten

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/expect"
	"sockwatch/inputs/internal/synthetic"
)

// detailsOf returns the details of the only point with that port: "TITLE: NAME = VALUE", and
// "(sensitive)" after what is. Those that depend on the machine are checked and left out.
func detailsOf(t *testing.T, in *input, b metric.Batch, port int) (lines []string) {
	t.Helper()
	p := one(t, b, port)
	sections, err := in.Details(t.Context(), &p)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sections {
		for _, d := range s.Details {
			switch d.Name {
			case "cgroup", "unit", "user_unit", "container", "pod", "login_uid":
				continue
			}
			line := fmt.Sprintf("%s: %s = %s", s.Title, d.Name, d.Value)
			if d.Sensitive {
				line += " (sensitive)"
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// numberedNetns returns the number of this program's network namespace.
func numberedNetns(t *testing.T) string {
	t.Helper()
	link, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(link, "net:["), "]")
}

func TestDetailsOfAListener(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	o.gatherAfter(0)
	opened := o.now.Time.Add(10 * time.Second)
	web := service(t, "web", "127.0.0.1", 4000)
	b := o.gatherAfter(10 * time.Second)
	p := one(t, b, 4000)
	netns := "the host's (" + numberedNetns(t) + ")"
	l := o.listeners.all[0]
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	started := o.open.procfs.StartTime(l.owner.Holders[0].Process.Start).UTC().Format("2006-01-02 15:04:05 UTC")
	socket := []string{
		"Socket: address = 127.0.0.1", "Socket: port = 4000", "Socket: family = ipv4", "Socket: netns = " + netns,
		"Socket: exposure = loopback", "Socket: exposure_reason = 127.0.0.1 is a loopback address",
		"Socket: user = root", "Socket: uid = 0", "Socket: owner = resolved",
		fmt.Sprint("Socket: inode = ", l.socket.Inode), fmt.Sprint("Socket: cookie = ", l.socket.Cookie),
		"Socket: backlog = 0", "Socket: backlog_limit = " + fieldText(p, "backlog_limit"),
		"Socket: first_seen = " + opened.UTC().Format("2006-01-02 15:04:05 UTC"),
		"Socket: changed = " + opened.UTC().Format("2006-01-02 15:04:05 UTC"),
	}
	holder := []string{
		"Holder: process = web", fmt.Sprint("Holder: pid = ", web.Process.Pid), "Holder: user = root", "Holder: uid = 0",
		"Holder: exe = " + exeOf(t, web.Process.Pid) + " (sensitive)", "Holder: process_start_time = " + started,
		"Holder: parent_pid = " + strconv.Itoa(os.Getpid()) + " (sensitive)",
		"Holder: parent_process = " + strings.TrimSpace(string(comm)) + " (sensitive)",
		"Holder: parent_exe = " + exeOf(t, os.Getpid()) + " (sensitive)", "Holder: netns = " + netns,
	}
	if diff := cmp.Diff(slices.Concat(socket, holder), detailsOf(t, o.input, b, 4000)); diff != "" {
		t.Errorf("details (-want +got):\n%s", diff)
	}
	sections, err := o.Details(t.Context(), &p)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(sections[1].Details, func(d plugin.Detail) bool { return d.Name == "cgroup" })
	if i < 0 || !sections[1].Details[i].Sensitive || !strings.HasPrefix(sections[1].Details[i].Value, "/") {
		t.Errorf("no sensitive cgroup of the holder: %v", sections[1])
	}

	web.End()
	want := slices.Concat(socket, []string{
		"Holder: process = web", fmt.Sprint("Holder: pid = ", web.Process.Pid),
		"Holder: state = has exited since the last gather, which saw what follows",
		"Holder: exe = " + exeOf(t, os.Getpid()) + " (sensitive)", "Holder: process_start_time = " + started,
	})
	if diff := cmp.Diff(want, detailsOf(t, o.input, b, 4000)); diff != "" {
		t.Errorf("details after the process has exited (-want +got):\n%s", diff)
	}
	o.gatherAfter(10 * time.Second)
	for _, absent := range []metric.Point{p, {Name: pointOverflow, Tags: p.Tags}, {Name: pointListener}} {
		if sections, err := o.Details(t.Context(), &absent); sections != nil || err != nil {
			t.Errorf("details of %s, which does not exist: %v, %v", absent.Series(), sections, err)
		}
	}
}

func TestDetailsNameWhereAListenerCanBeReached(t *testing.T) {
	if elsewhere(t) {
		return
	}
	ip(t, "link set lo up")
	ip(t, "address add 10.1.2.3/32 dev lo")
	ip(t, "address add 192.0.2.1/32 dev lo")
	start(t, task{Listen: []listenTask{
		{Addr: "0.0.0.0", Port: 4000}, {Addr: "10.1.2.3", Port: 4001}, {Addr: "0.0.0.0", Port: 4002, Device: "lo"}, {Addr: "192.0.2.1", Port: 4003},
	}})
	in := open(t, Defaults()).(*input)
	b := gather(t, in)
	ip(t, "address delete 192.0.2.1/32 dev lo")
	later := gather(t, in)
	for _, tt := range []struct {
		batch metric.Batch
		port  int
		want  string
	}{
		{batch: later, port: 4000, want: "private: it answers on all addresses, of which 10.1.2.3 is a private address"},
		{batch: later, port: 4001, want: "private: 10.1.2.3 is a private address"},
		{batch: later, port: 4002, want: "loopback: it answers on all addresses of device lo, of which 127.0.0.1 is a loopback address"},
		{batch: later, port: 4003, want: "none: unreachable: 192.0.2.1 is not an address in its network namespace"},
	} {
		var exposure, reason string
		for _, line := range detailsOf(t, in, tt.batch, tt.port) {
			if value, ok := strings.CutPrefix(line, "Socket: exposure = "); ok {
				exposure = value
			}
			if value, ok := strings.CutPrefix(line, "Socket: exposure_reason = "); ok {
				reason = value
			}
		}
		if got := exposure + ": " + reason; got != tt.want {
			t.Errorf("port %d: %q, want %q", tt.port, got, tt.want)
		}
	}
	if p := one(t, b, 4000); p.Tag("exposure") != "public" {
		t.Errorf("exposure %q before the address was deleted", p.Tag("exposure"))
	}
}

func TestDetailsOfManySocketsAndHolders(t *testing.T) {
	if elsewhere(t) {
		return
	}
	ip(t, "link set lo up")
	var sockets []listenTask
	for range maxShownSockets + 4 {
		sockets = append(sockets, listenTask{Addr: "127.0.0.1", Port: 4000, ReusePort: true})
	}
	start(t, task{Name: []byte("web"), Workers: 2, Listen: sockets})
	in := open(t, Defaults()).(*input)
	b := gather(t, in)
	p := one(t, b, 4000)
	sections, err := in.Details(t.Context(), &p)
	if err != nil {
		t.Fatal(err)
	}
	var titles, notSensitive []string
	for _, s := range sections {
		titles = append(titles, s.Title)
		for _, d := range s.Details {
			if !d.Sensitive && strings.HasPrefix(s.Title, "Holder") {
				notSensitive = append(notSensitive, s.Title+": "+d.Name)
			}
		}
	}
	var want []string
	for i := range maxShownSockets {
		want = append(want, fmt.Sprintf("Socket %d of 20", i+1))
	}
	want = append(want, "Holder 1 of 3", "Holder 2 of 3", "Holder 3 of 3")
	if diff := cmp.Diff(want, titles); diff != "" {
		t.Errorf("sections (-want +got):\n%s", diff)
	}
	last := sections[maxShownSockets-1].Details
	if got, want := last[len(last)-1], (plugin.Detail{Name: "more", Value: "4 more sockets are not shown"}); got != want {
		t.Errorf("the last detail of the last socket is %v, want %v", got, want)
	}
	if i := slices.IndexFunc(notSensitive, func(s string) bool { return !strings.HasPrefix(s, "Holder 1 ") }); i >= 0 {
		t.Errorf("not sensitive though the point does not name this process: %q", notSensitive[i])
	}
}

// A point may have more holders than are known by name.
func TestDetailsCountTheHoldersThatAreNotShown(t *testing.T) {
	g := groupsOf(0, 4000, 1, maxShownHolders+10)[0]
	s := &subject{holders: firstHolders(g), processes: 200}
	sections, err := s.inspectHolders(t.Context(), "/proc")
	if err != nil {
		t.Fatal(err)
	}
	last := sections[len(sections)-1]
	want := plugin.Detail{Name: "more", Value: "136 more processes are not shown", Sensitive: true}
	if got := last.Details[len(last.Details)-1]; got != want || len(sections) != maxShownHolders || last.Title != "Holder 64 of 200" {
		t.Errorf("%d sections, the last is %q and ends with %v, want %v", len(sections), last.Title, got, want)
	}
}

func TestDetailsNeverShowArguments(t *testing.T) {
	options := eventOptions()
	options.Cmdline = true
	o := observe(t, options)
	if o == nil {
		return
	}
	const secret = "98765.4321"
	executeWith(t, nil, socket(t, "127.0.0.1", 4000), "sleep", secret)
	b := o.gatherAfter(0)
	if p := one(t, b, 4000); !strings.Contains(fieldText(p, "cmdline"), secret) {
		t.Fatalf("the field cmdline is %q", fieldText(p, "cmdline"))
	}
	for _, line := range detailsOf(t, o.input, b, 4000) {
		if strings.Contains(line, secret) {
			t.Error(line)
		}
	}
}

func TestDetailsSayWhatMayNotBeRead(t *testing.T) {
	o := observe(t, eventOptions())
	if o == nil {
		return
	}
	service(t, "web", "127.0.0.1", 4000)
	b := o.gatherAfter(0)
	withoutReading(t, func() {
		// Permission to read a process of the same user is not lost with the capabilities, but
		// the capabilities of that process are missing here.
		got := strings.Join(detailsOf(t, o.input, b, 4000), "\n")
		if want := "Holder: state = may not be read in full: that needs CAP_SYS_PTRACE"; !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
		if strings.Contains(got, "Holder: exe") {
			t.Errorf("exe though it may not be read:\n%s", got)
		}
		service(t, "next", "127.0.0.1", 4001)
		got = strings.Join(detailsOf(t, o.input, o.gatherAfter(10*time.Second), 4001), "\n")
		if want := "Socket: owner = unreadable: no process that can be read holds it, but some cannot be read"; !strings.Contains(got, want) || strings.Contains(got, "Holder") {
			t.Errorf("want only %q in\n%s", want, got)
		}
	})
}

func TestDetailsExplainTheRules(t *testing.T) {
	options := ruledOptions()
	options.Unlisted = expect.UnlistedUnexpected
	options.Expect[0].Process = plugin.Strings{"nginx"}
	options.Allow = []expect.Allow{{
		Name: "all", Criteria: expect.Criteria{Process: plugin.Strings{"sshd"}}, Approval: expect.Approval{Why: "the bastion"},
	}}
	options.Forbid = nil
	o := observe(t, options)
	if o == nil {
		return
	}
	service(t, "apache", "127.0.0.1", 4000)
	service(t, "sshd", "127.0.0.1", 4001)
	b := o.gatherAfter(0)
	rules := func(port int) (lines []string) {
		for _, line := range detailsOf(t, o.input, b, port) {
			if strings.HasPrefix(line, "Rules: ") {
				lines = append(lines, line)
			}
		}
		return lines
	}
	want := []string{
		"Rules: expected = no", "Rules: nearest_rule = web", "Rules: why = process apache is not nginx of rule web (sensitive)",
	}
	if diff := cmp.Diff(want, rules(4000)); diff != "" {
		t.Errorf("of an unexpected listener (-want +got):\n%s", diff)
	}
	want = []string{
		"Rules: expected = yes", "Rules: rule = all", "Rules: why = matches rule all: the bastion (sensitive)", "Rules: matches = allow all: the bastion (sensitive)",
	}
	if diff := cmp.Diff(want, rules(4001)); diff != "" {
		t.Errorf("of an expected listener (-want +got):\n%s", diff)
	}
}

func TestDetailsWaitForAGatherOnlyWithinTheirContext(t *testing.T) {
	in := open(t, Defaults()).(*input)
	b := gather(t, in)
	in.scans.mu.Lock() // as a gather in flight
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := in.Details(ctx, &b.Points[0])
	if want := "waiting for the gather in flight: context deadline exceeded"; fmt.Sprint(err) != want || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want %s", err, want)
	}
	in.scans.mu.Unlock()
	gather(t, in) // Details does not hold the lock
}

// The detector of data races sees whether Details shares anything with gathers.
func TestDetailsDuringGathers(t *testing.T) {
	if testing.Short() {
		t.Skip("asks for details during many gathers")
	}
	if elsewhere(t) {
		return
	}
	ip(t, "link set lo up")
	start(t, task{Name: []byte("stays"), Workers: 1, Listen: []listenTask{{Addr: "127.0.0.1", Port: 4000}}})
	start(t, task{Churn: true})
	options := Defaults()
	options.OwnerVerify, options.OwnerRefresh, options.Established = 1, 1, true
	in := open(t, options).(*input)
	b := gather(t, in)
	p := one(t, b, 4000)
	stop := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if sections, err := in.Details(t.Context(), &p); err != nil || len(sections) != 3 {
				ended <- fmt.Errorf("%d sections, %w", len(sections), err)
				return
			}
			in.Limits()
		}
	}()
	for range 30 {
		gather(t, in)
		time.Sleep(time.Millisecond)
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// BenchmarkDetails measures the details of a listener with ten holders among 2,000.
func BenchmarkDetails(b *testing.B) {
	synthetic.Alone()
	if err := synthetic.Settle(); err != nil {
		b.Skip(err)
	}
	ip(b, "link set lo up")
	start(b, task{Listen: []listenTask{{Addr: "127.0.0.7", Port: 20000, Count: 2000}}})
	start(b, task{Name: []byte("web"), Workers: 9, Listen: []listenTask{{Addr: "127.0.0.1", Port: 4000}}})
	in := open(b, Defaults()).(*input)
	batch := gather(b, in)
	p := at(batch, 4000)[0]
	b.ReportAllocs()
	for b.Loop() {
		if sections, err := in.Details(b.Context(), &p); err != nil || len(sections) != 11 {
			b.Fatalf("%d sections, %v", len(sections), err)
		}
	}
}
