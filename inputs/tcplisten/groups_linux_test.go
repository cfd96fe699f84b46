package tcplisten

import (
	"net"
	"strconv"
	"testing"
)

// TestSocketsOfOneIdentityAreOnePoint sums an SO_REUSEPORT group and a pre-forked server, and keeps
// another process on the same port separate.
func TestSocketsOfOneIdentityAreOnePoint(t *testing.T) {
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
	for range 7 { // the kernel picks one of five sockets
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
		{process: "group", sockets: "4", processes: "6", limit: "60", pid: strconv.Itoa(first.Process.Pid)}, {process: "other", sockets: "1", processes: "1", limit: "5", pid: strconv.Itoa(other.Process.Pid)},
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
