package tcplisten

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"sockwatch/agent/metric"
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

// TestCustomPortExporter emits what the exporter emitted that this grows from.
func TestCustomPortExporter(t *testing.T) {
	child, ports := start(t, task{Name: []byte("a name"), Listen: []listenTask{{Addr: "127.0.0.1"}, {Addr: "::1"}, {Addr: "127.0.0.2"}}})
	options := Defaults()
	options.CustomPortExporter, options.ResolveAddresses = true, true
	in := open(t, options).(*input)
	in.exporter.names = newNames(func(_ context.Context, address string) ([]string, error) {
		switch address {
		case "127.0.0.1":
			return []string{"localhost", "other"}, nil
		case "::1":
			return []string{"a-very-long-name.example."}, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: address, IsNotFound: true}
	})
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
