package tcplisten

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sockwatch/inputs/internal/lookup"
	"strconv"
	"testing"
	"time"
)

// TestCustomPortExporter emits the points of the original exporter.
func TestCustomPortExporter(t *testing.T) {
	child, ports := start(t, task{Name: []byte("a name"), Listen: []listenTask{{Addr: "127.0.0.1"}, {Addr: "::1"}, {Addr: "127.0.0.2"}}})
	options := Defaults()
	options.CustomPortExporter, options.ResolveAddresses = true, true
	in := open(t, options).(*input)
	in.exporter.names = lookup.New(func(_ context.Context, a netip.Addr) (string, error) {
		switch a.String() {
		case "127.0.0.1":
			return firstName([]string{"localhost", "other"}, nil)
		case "::1":
			return firstName([]string{"a-very-long-name.example."}, nil)
		}
		return firstName(nil, &net.DNSError{Err: "no such host", Name: a.String(), IsNotFound: true})
	}, lookup.Options{Workers: 1, Timeout: time.Minute, Wait: time.Minute, Again: time.Hour, Retry: time.Hour})
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
