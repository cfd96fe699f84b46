package tcplisten

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"sockwatch/agent/plugin/plugintest/soak"
	"sockwatch/inputs/internal/testchild"
)

var (
	randomHosts = flag.Int("random.hosts", soak.Times(16), "random hosts to compare with ss")
	randomSeed  = flag.Uint64("random.seed", 1, "seed of the first of them")
)

// A scene is the answer of an actor that is ready.
type scene struct {
	Workers []int // the other processes that hold its sockets
	Error   string
}

// act makes the child an actor, which plays one process of each random host in turn: for every
// task that it reads, it closes its sockets and opens those of the task.
func (t *task) act() error {
	var files []*os.File
	var workers []*exec.Cmd
	leave := func() {
		for _, w := range workers {
			end(w)
		}
		for _, f := range files {
			f.Close()
		}
		files, workers = nil, nil
	}
	defer leave()
	tasks := json.NewDecoder(os.Stdin)
	for {
		var next task
		if err := tasks.Decode(&next); err != nil {
			return nil // the test is over
		}
		leave()
		s := scene{}
		if err := os.WriteFile("/proc/self/comm", next.Name, 0); err != nil {
			s.Error = err.Error()
		}
		for _, l := range next.Listen {
			fd, _, err := l.Open()
			if err == syscall.EADDRINUSE {
				continue // another actor has this one
			}
			if err != nil {
				s.Error = fmt.Sprintf("%+v: %v", l, err)
				continue
			}
			files = append(files, os.NewFile(uintptr(fd), "socket"))
		}
		for range next.Workers {
			w := exec.Command("sleep", "600")
			w.ExtraFiles = files
			if err := w.Start(); err != nil {
				s.Error = err.Error()
				continue
			}
			workers = append(workers, w)
			s.Workers = append(s.Workers, w.Process.Pid)
		}
		if err := testchild.Answer(s); err != nil {
			return err
		}
	}
}

// hear waits until the actor is ready, and returns its workers.
func hear(t *testing.T, actor *testchild.Child) []int {
	t.Helper()
	var s scene
	if err := actor.Hear(&s); err != nil || s.Error != "" {
		t.Fatalf("an actor says %q, %v", s.Error, err)
	}
	return s.Workers
}

// TestRandomHosts compares random hosts with ss, row by row: families, addresses, devices,
// SO_REUSEPORT, pre-forked processes, namespaces, hostile names. One input observes all of
// them, as if one host changed; others are new for each host, one for each owner_source.
func TestRandomHosts(t *testing.T) {
	if testing.Short() {
		t.Skip("compares many hosts")
	}
	if elsewhere(t, unix.CLONE_NEWPID) { // a search is short without other processes
		return
	}
	ip(t, "link set lo up")
	ip(t, "netns add other")
	ip(t, "-n other link set lo up")
	for _, in := range []string{"", "-n other "} {
		ip(t, in+"link add hw0 type veth peer name hw1")
		ip(t, in+"link set hw0 up")
		ip(t, in+"address add fe80::7/64 dev hw0 nodad")
		ip(t, in+"address add 10.9.8.7/32 dev lo")
		ip(t, in+"address add 2001:db8::7/128 dev lo nodad")
	}
	other, err := os.Open("/run/netns/other")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var actors []*testchild.Child
	for range 5 {
		actors = append(actors, startInNamespace(t, nil, task{Actor: true}))
	}
	for range 3 {
		actors = append(actors, startInNamespace(t, other, task{Actor: true}))
	}
	options := Defaults()
	options.Namespaces = true
	lasting := open(t, options).(*input)
	sources := []string{ownerSourceProcfs}
	if probe, err := openChanges("/proc"); err == nil { // what permits one permits the other
		probe.Close()
		sources = append(sources, ownerSourceBPF)
	}
	total := 0
	for seed := *randomSeed; seed < *randomSeed+uint64(*randomHosts) && !t.Failed(); seed++ {
		random := rand.New(rand.NewPCG(seed, 0))
		var workers []int
		for _, a := range actors {
			if err := a.Tell(randomTask(random)); err != nil {
				t.Fatal(err)
			}
		}
		for _, a := range actors {
			workers = append(workers, hear(t, a)...)
		}
		inputs := []*input{lasting}
		for _, source := range sources {
			options.OwnerSource = source
			inputs = append(inputs, open(t, options).(*input))
		}
		total += compare(t, seed, "at first", inputs...)
		if len(workers) > 0 && seed%2 == 0 {
			worker := workers[random.IntN(len(workers))]
			syscall.Kill(worker, syscall.SIGKILL)
			soon(t, "the worker has let go", func() bool {
				_, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/3", worker))
				return err != nil
			})
			compare(t, seed, "after a worker's end", inputs...)
		}
		for _, fresh := range inputs[1:] {
			closeInput(t, fresh)
			fresh.open = nil
		}
	}
	t.Logf("%d rows of %d hosts", total, *randomHosts)
	if total < 5**randomHosts {
		t.Errorf("only %d rows", total)
	}
}

// compare compares the inputs with ss, and returns the number of rows of ss.
func compare(t *testing.T, seed uint64, when string, inputs ...*input) int {
	t.Helper()
	all := func(int) bool { return true }
	want := map[string]map[string]row{"": ss(t, "", all), "other": ss(t, "other", all)}
	for i, in := range inputs {
		b := gather(t, in)
		// On a very busy host, another namespace may not be listed within its share of the time.
		for end := time.Now().Add(30 * time.Second); strings.Contains(b.Partial, "netns") && time.Now().Before(end); {
			b = gather(t, in)
		}
		for netns, want := range want {
			if diff := cmp.Diff(want, rows(t, in, b, netns, all), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("host %d, %s, netns %q, input %d (-ss +sockwatch):\n%s", seed, when, netns, i, diff)
			}
		}
	}
	return len(want[""]) + len(want["other"])
}

// randomTask returns the task of one process of a random host.
func randomTask(random *rand.Rand) task {
	pick := func(n int) bool { return random.IntN(n) == 0 }
	names := []string{"nginx", "a\nb c=1 2", ") R 1 1", "\xff\xfe", "fifteen-bytes-\xc3", "((", " ", "x\\y", "\u202eevil", "LISTEN 0 1"}
	addresses := []string{"127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "10.9.8.7", "2001:db8::7", "fe80::7%hw0"}
	job := task{Name: []byte(names[random.IntN(len(names))])}
	for range random.IntN(5) {
		l := listenTask{
			Addr: addresses[random.IntN(len(addresses))], Port: 4000 + random.IntN(8), Backlog: 1 + random.IntN(300),
			ReusePort: !pick(3), MPTCP: pick(4),
		}
		if l.Addr == "::" {
			l.V6Only = pick(2)
		}
		if pick(5) && (l.Addr == "0.0.0.0" || l.Addr == "::") {
			l.Device = []string{"lo", "hw0"}[random.IntN(2)]
		}
		job.Listen = append(job.Listen, l)
	}
	if len(job.Listen) > 0 && pick(2) {
		job.Workers = 1 + random.IntN(3)
	}
	return job
}
