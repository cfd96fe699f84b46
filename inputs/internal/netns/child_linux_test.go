package netns

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/synthetic"
	"sockwatch/inputs/internal/testchild"
)

// The processes and their namespaces in these tests are real: this test
// program, run again with a task. All tests run in their own network, mount and pid
// namespaces if that is permitted.
func TestMain(m *testing.M) {
	testchild.Main((*task).run)
	flag.Parse()
	synthetic.Alone()
	os.Exit(m.Run())
}

// A task is what a child does. When it has done it, it prints one line of
// JSON, and lives until its standard input ends.
type task struct {
	Listen    []listener // what it listens on
	Thread    bool       // it listens in a namespace that only one of its threads is in
	Open      string     // a file that it holds open
	OpenMany  int        // how many other files it holds open, before that one
	In        []string   // namespaces in which it only has sockets
	Report    *Options   // it lists all namespaces twice, prints []report of the second time, and ends
	Proc      string     // the procfs of the report
	NoNetlink bool       // it is refused netlink sockets, by seccomp
}

// A listener is one listening socket; its port is that of the task if it has none.
type listener = testchild.Listener

const port = 4000

func (t *task) run() error {
	if t.NoNetlink {
		if err := synthetic.RefuseNetlink(); err != nil {
			return err
		}
	}
	if t.Report != nil {
		all, err := reportAll(*t.Report, t.Proc)
		if err != nil {
			return err
		}
		return testchild.Answer(all)
	}
	if t.Thread {
		if err := t.listenOnThread(); err != nil {
			return err
		}
	} else if len(t.In) > 0 {
		if err := t.listenIn(); err != nil {
			return err
		}
	} else if err := t.listen(); err != nil {
		return err
	}
	for range t.OpenMany {
		if _, err := unix.Open("/dev/null", unix.O_RDONLY, 0); err != nil {
			return err
		}
	}
	if t.Open != "" {
		if _, err := unix.Open(t.Open, unix.O_RDONLY, 0); err != nil {
			return err
		}
	}
	if err := testchild.Answer(struct{}{}); err != nil {
		return err
	}
	testchild.Wait()
	return nil
}

// listenOnThread opens its sockets in a new namespace, in which only a thread other than the
// first one stays.
func (t *task) listenOnThread() error {
	done := make(chan error)
	go testchild.OnSpareThread(func() error {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = t.listen()
		}
		done <- err
		select {}
	})
	return <-done
}

// listenIn opens its sockets in other namespaces.
func (t *task) listenIn() error {
	for _, path := range t.In {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = inside(f, t.listen)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *task) listen() error {
	for _, l := range t.Listen {
		if l.Port == 0 {
			l.Port = port
		}
		l.Backlog = 100
		for range max(l.Count, 1) {
			if _, _, err := l.Open(); err != nil {
				return fmt.Errorf("listen on %+v: %w", l, err)
			}
			l.Port++
		}
	}
	return nil
}

// A report is what a Set returns for a namespace.
type report struct {
	Name    string
	Host    bool
	Hidden  bool // its number
	Procfs  bool
	Reason  string
	Sockets []string // "address:port exposure"
	Error   string
}

// reportAll finds all namespaces twice and reports the result of the second time.
func reportAll(o Options, proc string) ([]report, error) {
	if proc == "" {
		proc = "/proc"
	}
	s, err := Open(host.Find(proc), o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var all []report
	for range 2 {
		partial, err := s.Find(context.Background(), time.Now())
		if err != nil || partial != "" {
			return nil, fmt.Errorf("find: %w, partial %q", err, partial)
		}
		all = nil
		for _, n := range s.All() {
			all = append(all, reportOf(n))
		}
	}
	return all, nil
}

func reportOf(n *Namespace) report {
	r := report{Name: n.Name(), Host: n.Host(), Hidden: n.Inode() == 0}
	var found []inet.Socket
	source, err := n.Dump(context.Background(), Listen, 0, func() { found = nil }, func(s *inet.Socket) { found = append(found, *s) })
	r.Procfs = source.Procfs
	if source.Reason != nil {
		r.Reason = source.Reason.Error()
	}
	l, localErr := n.Local(context.Background())
	if err = errors.Join(err, localErr); err != nil {
		r.Error = err.Error()
	}
	for i := range found {
		text := netip.AddrPortFrom(found[i].Addr, found[i].Port).String()
		if l != nil {
			text = strings.TrimSuffix(text+" "+l.Exposure(&found[i]).String(), " ")
		}
		r.Sockets = append(r.Sockets, text)
	}
	slices.Sort(r.Sockets)
	return r
}

// A child is a process that performs a task. It ends with the test, or by End.
type child struct {
	*testchild.Child
	answer json.RawMessage
}

// start starts a child in this test's namespaces, or in the network namespace of a
// file, and waits until it has done its task.
func start(t *testing.T, netns string, job task, attr *syscall.SysProcAttr) *child {
	t.Helper()
	c := &child{}
	begin := func() (err error) {
		c.Child, err = testchild.StartAndHear(&job, nil, attr, &c.answer)
		return err
	}
	var err error
	if netns == "" {
		err = begin()
	} else {
		f, openErr := os.Open(netns)
		if openErr != nil {
			t.Fatal(openErr)
		}
		defer f.Close()
		err = inside(f, begin)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.End)
	return c
}

func (c *child) reports(t *testing.T) (all []report) {
	t.Helper()
	if err := json.Unmarshal(c.answer, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// isolated skips a test that needs its own namespaces.
func isolated(t *testing.T) {
	t.Helper()
	if os.Getenv(synthetic.EnvAlone) == "" {
		t.Skip("needs namespaces of its own, and thus root")
	}
}

// ip runs ip(8) with arguments as one string.
func ip(t *testing.T, arguments string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", arguments, err, out)
	}
}

// soon waits until a condition holds, long enough for a busy machine.
func soon(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}

func options(backend string) Options {
	return Options{Backend: backend, Others: true, Refresh: 5 * time.Minute}
}

func open(t *testing.T, o Options) *Set {
	t.Helper()
	s, err := Open(host.Find("/proc"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func find(t *testing.T, s *Set) {
	t.Helper()
	partial, err := s.Find(t.Context(), time.Now())
	if err != nil || partial != "" {
		t.Fatalf("partial %q, %v", partial, err)
	}
}

// named returns the namespace of that name, or nil.
func named(s *Set, name string) *Namespace {
	for _, n := range s.All() {
		if n.Name() == name {
			return n
		}
	}
	return nil
}

var wildcardIPv4 = netip.IPv4Unspecified()
