package netns

import (
	"errors"
	"fmt"
	"iter"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"sockwatch/agent/plugin/plugintest/soak"
	"sockwatch/inputs/internal/inet"
)

// newNamed makes a namespace and finds it.
func newNamed(t *testing.T, name string) *Namespace {
	t.Helper()
	ip(t, "netns add "+name)
	t.Cleanup(func() { ip(t, "netns delete "+name) })
	ip(t, "-n "+name+" link set lo up")
	s := open(t, options(Auto))
	find(t, s)
	return named(s, name)
}

// TestWatchIgnoresOtherRoutes: none of 1,000 changes of a router's routes is reported, but
// a change of a local route is.
func TestWatchIgnoresOtherRoutes(t *testing.T) {
	isolated(t)
	n := newNamed(t, "router")
	if _, err := n.Local(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := n.routes.watch
	w.changed()
	for _, test := range []struct {
		command string
		want    bool
	}{
		{command: "route add 198.51.100.0/24 dev lo", want: false},
		{command: "route add blackhole 192.0.2.0/24", want: false},
		{command: "-6 route add 2001:db8:1::/64 dev lo", want: false},
		{command: "route del 198.51.100.0/24 dev lo", want: false},
		{command: "route add local 203.0.113.0/24 dev lo", want: true},
		{command: "route del local 203.0.113.0/24 dev lo", want: true},
		{command: "-6 route add local 2001:db8:2::/64 dev lo", want: true},
		{command: "rule add pref 100 lookup 100", want: true},
		{command: "-6 rule add pref 100 lookup 100", want: true},
		{command: "address add 203.0.113.9/32 dev lo", want: true},
		{command: "link add k0 type veth peer name k1", want: true},
		{command: "link set k0 up", want: true},
	} {
		ip(t, "-n router "+test.command)
		if got := w.changed(); got != test.want {
			t.Errorf("after ip %s: changed %t, expected %t", test.command, got, test.want)
		}
		// The kernel announces the rest of a change of links shortly afterwards.
		for end := time.Now().Add(30 * time.Second); strings.HasPrefix(test.command, "link") && time.Now().Before(end); {
			time.Sleep(50 * time.Millisecond)
			if !w.changed() {
				break
			}
		}
	}
}

// TestLargeRoutingTable: the local routes of a router with 200,000 others are read
// in a fraction of the time that it takes to read all routes.
func TestLargeRoutingTable(t *testing.T) {
	soak.Only(t, "makes 200,000 routes")
	isolated(t)
	ip(t, "netns add router")
	t.Cleanup(func() { ip(t, "netns delete router") })
	ip(t, "-n router link set lo up")
	ip(t, "-n router address add 203.0.113.7/32 dev lo")
	batchIn(t, "router", func(yield func(string) bool) {
		for i := range 200_000 {
			if !yield(fmt.Sprintf("route add blackhole %d.%d.%d.0/24", 16+i/50_000, i/250%200, i%250)) {
				return
			}
		}
	})
	start(t, "/run/netns/router", task{Listen: everywhere}, nil)
	for _, backend := range []string{Auto, Procfs} {
		o := Options{Backend: backend, Refresh: time.Minute}
		all := start(t, "/run/netns/router", task{Report: &o}, nil).reports(t)
		if len(all) != 1 || all[0].Error != "" || len(all[0].Sockets) != 1 || all[0].Sockets[0] != "0.0.0.0:4000 public" {
			t.Errorf("by %s: %+v", backend, all)
		}
	}
	// Without netlink, it is not known what can be reached, and the error says so.
	o := Options{Backend: Auto, Refresh: time.Minute}
	all := start(t, "/run/netns/router", task{Report: &o, NoNetlink: true}, nil).reports(t)
	if want := "fib_trie: file is too large"; len(all) != 1 || !strings.Contains(all[0].Error, want) || len(all[0].Sockets) != 1 {
		t.Errorf("without netlink: %+v, expected an error %q", all, want)
	}
}

// batchIn runs commands of ip(8) in a namespace.
func batchIn(t *testing.T, netns string, commands iter.Seq[string]) {
	t.Helper()
	var text strings.Builder
	for c := range commands {
		text.WriteString(c + "\n")
	}
	cmd := exec.Command("ip", "-n", netns, "-batch", "-")
	cmd.Stdin = strings.NewReader(text.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestHostileNamespaceCostsNobodyElse lists the host while another namespace changes
// constantly.
func TestHostileNamespaceCostsNobodyElse(t *testing.T) {
	if testing.Short() {
		t.Skip("adds 5,000 addresses")
	}
	isolated(t)
	start(t, "", task{Listen: []listener{{Addr: "127.0.0.1"}}}, nil)
	ip(t, "netns add hostile")
	t.Cleanup(func() { ip(t, "netns delete hostile") })
	ip(t, "-n hostile link set lo up")
	batchIn(t, "hostile", func(yield func(string) bool) {
		for i := range 5_000 {
			if !yield(fmt.Sprintf("address add 10.1.%d.%d/32 dev lo", i/250, i%250)) {
				return
			}
		}
	})
	start(t, "/run/netns/hostile", task{Listen: everywhere}, nil)
	for i := range 3 {
		churn := exec.Command("bash", "-c", fmt.Sprintf(`while :; do for i in $(seq 200); do
			echo "address add 10.%[1]d.0.1/32 dev lo"; echo "address del 10.%[1]d.0.1/32 dev lo"
			echo "link add c%[1]d type veth peer name d%[1]d"; echo "link del c%[1]d"; done | ip -n hostile -batch -; done`, 100+i))
		churn.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := churn.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			syscall.Kill(-churn.Process.Pid, syscall.SIGKILL) // with its children, which are in the namespace
			churn.Wait()
			for { // this program is the first process of its pid namespace
				if _, err := syscall.Wait4(-churn.Process.Pid, nil, 0, nil); err != nil && err != syscall.EINTR {
					return
				}
			}
		})
	}
	s := open(t, options(Auto))
	for range 8 {
		find(t, s)
		for _, n := range s.All() {
			began := time.Now()
			r := reportOf(n)
			if n.Host() && (r.Error != "" || len(r.Sockets) != 1) || n.Gone() {
				t.Errorf("%+v, gone %t", r, n.Gone())
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("%q took %v", n.Name(), took)
			}
		}
	}
}

// A kernel answers the n-th request of a connection, counted from 1.
type kernel struct {
	answer   func(n int, request netlink.Message) []netlink.Message
	requests int
	last     netlink.Message
}

func (k *kernel) Close() error                         { return nil }
func (k *kernel) SetDeadline(time.Time) error          { return nil }
func (k *kernel) SetReadDeadline(time.Time) error      { return nil }
func (k *kernel) SetWriteDeadline(time.Time) error     { return nil }
func (k *kernel) SendMessages([]netlink.Message) error { return errors.ErrUnsupported }
func (k *kernel) Receive() ([]netlink.Message, error)  { return nil, errors.ErrUnsupported }
func (k *kernel) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		for _, m := range k.answer(k.requests, k.last) {
			if m.Header.Sequence == 0 {
				m.Header.Sequence = k.last.Header.Sequence
			}
			m.Header.Flags |= netlink.Multi
			if !yield(m, nil) {
				return
			}
		}
	}
}

func (k *kernel) Send(m netlink.Message) error {
	k.requests++
	k.last = m
	return nil
}

// TestInterruptedRoutesAreReadAgain covers faults in an answer: the request is repeated, or
// returns an error.
func TestInterruptedRoutesAreReadAgain(t *testing.T) {
	message := func(kind netlink.HeaderType, data []byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: kind}, Data: data}
	}
	done := message(netlink.Done, number32(0))
	failed := func(errno unix.Errno) netlink.Message { return message(netlink.Done, number32(uint32(-int32(errno)))) }
	whole := func(request netlink.Message) []netlink.Message {
		switch request.Header.Type {
		case unix.RTM_GETLINK:
			return []netlink.Message{message(unix.RTM_NEWLINK, linkMessage(1, unix.IFF_UP|unix.IFF_LOOPBACK)), done}
		case unix.RTM_GETRULE:
			return []netlink.Message{message(unix.RTM_NEWRULE, ruleMessage(0, 0, 255, unix.FR_ACT_TO_TBL, 0)), done}
		}
		if request.Data[0] == unix.AF_INET6 {
			return []netlink.Message{done}
		}
		return []netlink.Message{message(unix.RTM_NEWROUTE, routeMessage(unix.AF_INET, 32, 255, unix.RTN_LOCAL, 0, attribute(unix.RTA_DST, 203, 0, 113, 7))), done}
	}
	torn := func(request netlink.Message) []netlink.Message {
		answer := whole(request)
		answer[0].Header.Flags |= netlink.DumpInterrupted
		return answer
	}
	const perAttempt = 5 // requests
	for name, test := range map[string]struct {
		answer   func(n int, request netlink.Message) []netlink.Message
		attempts int
		err      string
	}{
		"whole": {
			answer:   func(n int, r netlink.Message) []netlink.Message { return whole(r) },
			attempts: 1,
		},
		"links torn twice": {
			answer: func(n int, r netlink.Message) []netlink.Message {
				if n <= 2*perAttempt && r.Header.Type == unix.RTM_GETLINK {
					return torn(r)
				}
				return whole(r)
			},
			attempts: 3,
		},
		"rules torn once": {
			answer: func(n int, r netlink.Message) []netlink.Message {
				if n == 2 {
					return torn(r)
				}
				return whole(r)
			},
			attempts: 2,
		},
		"torn always": {
			answer:   func(n int, r netlink.Message) []netlink.Message { return torn(r) },
			attempts: 8, err: "read routes: interrupted by changes at every attempt",
		},
		"no rules": {
			answer: func(n int, r netlink.Message) []netlink.Message {
				if r.Header.Type == unix.RTM_GETRULE {
					return []netlink.Message{failed(unix.EAFNOSUPPORT)}
				}
				return whole(r)
			},
			attempts: 1,
		},
		"no IPv6": {
			answer: func(n int, r netlink.Message) []netlink.Message {
				if r.Header.Type != unix.RTM_GETLINK && r.Data[0] == unix.AF_INET6 {
					return []netlink.Message{failed(unix.EOPNOTSUPP)}
				}
				return whole(r)
			},
			attempts: 1,
		},
		"refused": {
			answer:   func(n int, r netlink.Message) []netlink.Message { return []netlink.Message{failed(unix.EPERM)} },
			attempts: 0, err: "list devices: netlink receive: operation not permitted",
		},
		"answer to another request": {
			answer: func(n int, r netlink.Message) []netlink.Message {
				answer := whole(r)
				answer[0].Header.Sequence = r.Header.Sequence + 2
				return answer
			},
			err: "list devices: answer to request ",
		},
		"short message": {
			answer: func(n int, r netlink.Message) []netlink.Message {
				return []netlink.Message{message(unix.RTM_NEWLINK, []byte{1, 2, 3}), done}
			},
			err: "list devices: message of 3 bytes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := &kernel{answer: test.answer}
			l, err := readRoutes(t.Context(), netlink.NewConn(k, 1), false)
			if (err == nil) != (test.err == "") || err != nil && !strings.HasPrefix(err.Error(), test.err) {
				t.Fatalf("error %v, expected %q", err, test.err)
			}
			if k.requests/perAttempt != test.attempts {
				t.Errorf("%d requests, expected %d attempts", k.requests, test.attempts)
			}
			if err == nil && l.Exposure(&inet.Socket{Addr: wildcardIPv4}) != inet.Public {
				t.Errorf("%+v", l)
			}
		})
	}
}
