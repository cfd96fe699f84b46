package tcplisten

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/expect"
	"sockwatch/inputs/internal/host"
)

// Audit compares what listens now with the rules of in, an input of this package. An
// expect rule must hold at once. The caller sets the name of the host in the report.
func Audit(ctx context.Context, in plugin.Input) (*Report, error) {
	listeners, err := gatherForRules(ctx, in.(*input))
	if err != nil {
		return nil, err
	}
	r := expect.NewReport(in.(*input).rules, listeners, time.Now())
	h := host.Find(in.(*input).options.procPath(os.Getenv))
	r.MachineID, r.BootID = h.MachineID(), h.BootID()
	return r, nil
}

// Suggest returns rules as TOML that hold for what listens now: those of a rule file, or,
// if inline, those of an input in a configuration.
func Suggest(ctx context.Context, in plugin.Input, inline bool) (string, error) {
	listeners, err := gatherForRules(ctx, in.(*input))
	if err != nil {
		return "", err
	}
	prefix := ""
	if inline {
		prefix = "inputs." + pointListener
	}
	ports, err := ephemeralPorts(in.(*input).options.procPath(os.Getenv))
	if err != nil {
		return "", err
	}
	return expect.Print(expect.Suggest(listeners, ports), prefix), nil
}

// gatherForRules gathers once and returns the listeners as rules see them.
func gatherForRules(ctx context.Context, in *input) ([]*expect.Listener, error) {
	if _, err := in.Gather(ctx); err != nil {
		return nil, err
	}
	defer in.Close()
	listeners := make([]*expect.Listener, 0, len(in.listeners.all))
	for _, l := range in.listeners.all {
		listeners = append(listeners, l.forRules(in.open.users))
	}
	return listeners, nil
}

// ephemeralPorts returns the ports that the kernel gives to sockets that ask for none.
func ephemeralPorts(proc string) (expect.PortRange, error) {
	path := filepath.Join(proc, "sys/net/ipv4/ip_local_port_range")
	text, err := os.ReadFile(path)
	if err != nil {
		return expect.PortRange{}, err
	}
	var r expect.PortRange
	if _, err := fmt.Fscan(strings.NewReader(string(text)), &r.First, &r.Last); err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}
