package tcplisten

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/expect"
	"sockwatch/inputs/internal/host"
	"sockwatch/inputs/internal/owner"
)

// Audit compares the current listeners with the rules of an input that this package made, and
// closes the input. Expected listeners must listen now, whatever their for. The error is
// ErrNoRules if the rules do not apply to any listener.
func Audit(ctx context.Context, in plugin.Input) (*Report, error) {
	i := in.(*input)
	if !i.rules.Meaningful() {
		return nil, ErrNoRules
	}
	defer i.Close() // nothing is kept
	listeners, partial, err := i.scanOnce(ctx)
	if err != nil {
		return nil, err
	}
	h := host.Find(i.options.procPath(os.Getenv))
	r := expect.NewReport(i.rules, listeners, time.Now())
	r.Host, r.MachineID, r.BootID, r.Input = i.env.Hostname, h.MachineID(), h.BootID(), i.env.Name
	r.ListenerSource, r.OwnerSource = i.source().words()
	r.SetIncomplete(partial)
	return r, nil
}

// Suggest drafts rules for the current listeners, and closes the input. They have the form of
// a rule file or, if inline, of the tables of an input in a configuration.
func Suggest(ctx context.Context, in plugin.Input, inline bool) (*Draft, error) {
	i := in.(*input)
	defer i.Close() // nothing is kept
	ports, err := ephemeralPorts(i.options.procPath(os.Getenv))
	if err != nil {
		return nil, err
	}
	listeners, partial, err := i.scanOnce(ctx)
	if err != nil {
		return nil, err
	}
	prefix := ""
	if inline {
		prefix = "inputs." + pointListener
	}
	d := &Draft{Rules: expect.Print(expect.Suggest(listeners, ports), prefix), Incomplete: partial}
	for _, l := range listeners {
		if l.OwnerUnknown {
			d.Unknown = append(d.Unknown, l.String())
		}
	}
	slices.Sort(d.Unknown)
	d.Unknown = slices.Compact(d.Unknown)
	return d, nil
}

// scanOnce gathers, and returns the listeners as rules see them. It gathers
// again while there are unknown names that will soon be known.
func (in *input) scanOnce(ctx context.Context) (listeners []*expect.Listener, partial string, err error) {
	in.warned.expiryLogged(in.rules.Expiring(time.Now()), time.Now()) // the report includes it
	const attempts, pause = 20, 100 * time.Millisecond
	for range attempts {
		b, err := in.Gather(ctx)
		if err != nil {
			return nil, "", err
		}
		partial = b.Partial
		if !slices.ContainsFunc(in.listeners.all, in.unsettled) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		if ctx.Err() != nil {
			break
		}
	}
	for _, l := range in.listeners.all {
		listeners = append(listeners, l.forRules(in.open.users))
	}
	return listeners, partial, nil
}

// unsettled reports whether another gather may find out more about a listener's owner.
func (in *input) unsettled(l *listener) bool {
	return l.owner.Status == owner.Pending || in.open.users.Pending(l.socket.UID)
}

// ephemeralPorts returns the ports that the kernel assigns to sockets that do not choose one.
func ephemeralPorts(proc string) (expect.PortRange, error) {
	path := filepath.Join(proc, "sys/net/ipv4/ip_local_port_range")
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // procfs with subset=pid, or gVisor
		return expect.PortRange{First: 32768, Last: 60999}, nil // the default of Linux: ip(7)
	case err != nil:
		return expect.PortRange{}, err
	}
	var r expect.PortRange
	if _, err := fmt.Fscan(strings.NewReader(string(text)), &r.First, &r.Last); err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}
