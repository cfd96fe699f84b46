package tcplisten

import (
	"net"
	"strconv"
	"testing"
)

// TestEstablished counts connections by the listener that accepted them.
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
