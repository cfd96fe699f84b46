package tcplisten

import (
	"os/exec"
	"regexp"
	"slices"
	"sockwatch/agent/metric"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A row is the information that both ss and tcp_listen have about the sockets of one address.
type row struct {
	Sockets, Backlog, Limit int
	PIDs                    []int // of all holders
}

// TestAgreesWithSS compares every row with that of `ss -Hltnp`.
func TestAgreesWithSS(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	own, done := isolated(t)
	if done {
		return
	}
	if own {
		ip(t, "link set lo up")
		ip(t, "address add 10.9.8.7/32 dev lo")
		ip(t, "address add 2001:db8::7/128 dev lo nodad")
		ip(t, "link add hw0 type veth peer name hw1")
		ip(t, "link set hw0 up")
	}
	jobs := []task{
		{Name: []byte("plain"), Listen: []listenTask{
			{Addr: "127.0.0.1"}, {Addr: "0.0.0.0", Backlog: 7}, {Addr: "::1"}, {Addr: "127.0.0.2", Backlog: 4096},
		}},
		{Name: []byte("dual"), Listen: []listenTask{{Addr: "::"}}},
		{Name: []byte("v6only"), Listen: []listenTask{{Addr: "::", V6Only: true}}},
		{Name: []byte("mapped"), Listen: []listenTask{{Addr: "::ffff:127.0.0.1"}}},
		{Name: []byte("prefork"), Workers: 3, Listen: []listenTask{{Addr: "127.0.0.1"}, {Addr: "::", V6Only: true}}},
		{Name: []byte("with space"), Listen: []listenTask{{Addr: "127.0.0.1"}}},
	}
	if own {
		jobs = append(jobs,
			task{Name: []byte("addresses"), Listen: []listenTask{{Addr: "10.9.8.7", Port: 4000}, {Addr: "127.0.0.1", Port: 4000}, {Addr: "2001:db8::7", Port: 4000}}},
			task{Name: []byte("reuse"), Workers: 1, Listen: []listenTask{{Addr: "127.0.0.1", Port: 4001, ReusePort: true}, {Addr: "127.0.0.1", Port: 4001, ReusePort: true, Backlog: 5}}},
			task{Name: []byte("device"), Listen: []listenTask{{Addr: "0.0.0.0", Port: 4002, Device: "hw0"}, {Addr: "::", Port: 4003, Device: "lo"}}},
		)
	}
	ports := make(map[int]bool)
	for _, j := range jobs {
		_, opened := start(t, j)
		for _, p := range opened {
			ports[p] = true
		}
	}
	ours := func(port int) bool { return own || ports[port] }
	for _, backend := range []string{backendNetlink, backendProcfs} {
		t.Run(backend, func(t *testing.T) {
			options := Defaults()
			options.Backend = backend
			in := open(t, options).(*input)
			want, got := ss(t, "", ours), rows(t, in, gather(t, in), "", ours)
			if backend == backendProcfs {
				want, got = withoutNetlink(want), withoutNetlink(got)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("ss and sockwatch differ (-ss +sockwatch):\n%s", diff)
			}
			if len(got) < 10 {
				t.Errorf("only %d rows were compared", len(got))
			}
		})
	}
}

var (
	ssRow  = regexp.MustCompile(`^LISTEN +(\d+) +(\d+) +(\S+):(\d+) `)
	ssUser = regexp.MustCompile(`pid=(\d+),fd=\d+\)`)
)

// ss returns the rows of ss in a network namespace, by address in ss's notation.
func ss(t *testing.T, netns string, ours func(port int) bool) map[string]row {
	t.Helper()
	need(t, "ss")
	arguments := []string{"ss", "-Hltnp"}
	if netns != "" {
		arguments = append(arguments, "-N", netns)
	}
	out, err := exec.Command(arguments[0], arguments[1:]...).Output()
	if err != nil {
		t.Fatalf("ss: %v", err)
	}
	rows := make(map[string]row)
	if len(out) == 0 {
		return rows
	}
	for text := range strings.SplitSeq(strings.ReplaceAll(string(out), "\nLISTEN ", "\x00LISTEN "), "\x00") {
		m := ssRow.FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("a row of ss is %q", text)
		}
		if port := number(t, m[4]); !ours(port) {
			continue
		}
		key := m[3] + ":" + m[4]
		r := rows[key]
		r.Sockets++
		r.Backlog += number(t, m[1])
		r.Limit += number(t, m[2])
		for _, u := range ssUser.FindAllStringSubmatch(text, -1) {
			r.PIDs = append(r.PIDs, number(t, u[1]))
		}
		rows[key] = r
	}
	for key, r := range rows {
		slices.Sort(r.PIDs)
		r.PIDs = slices.Compact(r.PIDs)
		rows[key] = r
	}
	return rows
}

// withoutNetlink removes from rows what /proc/net/tcp does not contain: limits, devices, and
// whether [::] also accepts IPv4.
func withoutNetlink(rows map[string]row) map[string]row {
	bare := make(map[string]row)
	for key, r := range rows {
		key = strings.Replace(regexp.MustCompile(`%\w+`).ReplaceAllString(key, ""), "[::]", "*", 1)
		r.Limit = 0
		bare[key] = r
	}
	return bare
}

// rows returns the rows of an input's batch, with addresses in ss's notation.
// A point has only the number of holders, so the pids come from the listeners that it was
// built from.
func rows(t *testing.T, in *input, b metric.Batch, netns string, ours func(port int) bool) map[string]row {
	t.Helper()
	rows := make(map[string]row)
	for i, p := range b.Points {
		if p.Name != pointListener || p.Tag("netns") != netns || !ours(number(t, p.Tag("port"))) {
			continue
		}
		var holders []int
		for _, l := range in.groups.shown[i].members {
			for _, h := range l.owner.Holders {
				holders = append(holders, h.Process.PID)
			}
		}
		slices.Sort(holders)
		holders = slices.Compact(holders)
		if n := field(t, p, "processes"); n != len(holders) {
			t.Errorf("%s has %d processes, not %d", p.Series(), n, len(holders))
		}
		if len(holders) > 0 && !slices.Contains(holders, field(t, p, "pid")) {
			t.Errorf("%s names %d, which is not among %v", p.Series(), field(t, p, "pid"), holders)
		}
		key := ssAddress(p) + ":" + p.Tag("port")
		r := rows[key]
		r.Sockets += field(t, p, "sockets")
		r.Backlog += field(t, p, "backlog")
		if _, ok := p.Field("backlog_limit"); ok {
			r.Limit += field(t, p, "backlog_limit")
		}
		r.PIDs = append(r.PIDs, holders...)
		slices.Sort(r.PIDs)
		r.PIDs = slices.Compact(r.PIDs)
		rows[key] = r
	}
	return rows
}

// ssAddress formats an address as ss does.
func ssAddress(p metric.Point) string {
	address, device, bound := strings.Cut(p.Tag("address"), "%")
	switch {
	case p.Tag("family") == "dual":
		address = "*"
	case strings.Contains(address, ":"):
		address = "[" + address + "]"
	}
	if bound {
		address += "%" + device
	}
	return address
}
