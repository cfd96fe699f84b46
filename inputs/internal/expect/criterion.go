package expect

import (
	"sockwatch/agent/plugin"
	"sockwatch/inputs/internal/inet"
)

// A globOption is a criterion that compares one value with globs.
type globOption struct {
	name     string
	patterns func(*Criteria) *plugin.Strings
	// value returns the value of a holder, or of the socket if h is nil, and whether that is
	// known.
	value   func(l *Listener, h *Holder) (value string, known bool)
	telling bool     // a value distinguishes an owner from most others
	all     []string // all possible values, if they are few
}

// globOptions are the criteria that compare one value with globs: all but port and address.
var globOptions = []globOption{
	{name: "process", patterns: func(c *Criteria) *plugin.Strings { return &c.Process }, value: (*Listener).process, telling: true},
	{name: "exe", patterns: func(c *Criteria) *plugin.Strings { return &c.Exe }, value: (*Listener).exe, telling: true},
	{name: "user", patterns: func(c *Criteria) *plugin.Strings { return &c.User }, value: (*Listener).user},
	{name: "unit", patterns: func(c *Criteria) *plugin.Strings { return &c.Unit }, value: ofCgroup(func(c cgroup) string { return c.unit }), telling: true},
	{name: "user_unit", patterns: func(c *Criteria) *plugin.Strings { return &c.UserUnit }, value: ofCgroup(func(c cgroup) string { return c.userUnit }), telling: true},
	{name: "container", patterns: func(c *Criteria) *plugin.Strings { return &c.Container }, value: ofCgroup(func(c cgroup) string { return c.container }), telling: true},
	{name: "pod", patterns: func(c *Criteria) *plugin.Strings { return &c.Pod }, value: ofCgroup(func(c cgroup) string { return c.pod }), telling: true},
	{name: "netns", patterns: func(c *Criteria) *plugin.Strings { return &c.Netns }, value: func(l *Listener, _ *Holder) (string, bool) { return l.Netns, true }},
	{
		name: "family", patterns: func(c *Criteria) *plugin.Strings { return &c.Family }, all: []string{"ipv4", "ipv6", "dual"},
		value: func(l *Listener, _ *Holder) (string, bool) { return l.Family, true },
	},
	{
		name: "exposure", patterns: func(c *Criteria) *plugin.Strings { return &c.Exposure }, all: exposures(),
		value: func(l *Listener, _ *Holder) (string, bool) { return l.Exposure.String(), !l.ExposureUnknown },
	},
}

// exposures returns the values of the tag exposure. The last is "", for none.
func exposures() []string {
	var all []string
	for class := inet.Loopback; class <= inet.Public; class++ {
		all = append(all, class.String())
	}
	return append(all, "")
}

func (l *Listener) process(h *Holder) (value string, known bool) {
	if h == nil {
		return "", !l.OwnerUnknown
	}
	return h.Process, h.Process != ""
}

func (l *Listener) exe(h *Holder) (value string, known bool) {
	if h == nil {
		return "", !l.OwnerUnknown
	}
	return h.Exe, h.Exe != ""
}

func (l *Listener) user(h *Holder) (value string, known bool) {
	if h != nil && h.User != "" {
		return h.User, true
	}
	return l.User, !l.UserPending
}

// A cgroup is what the cgroup of a holder or a socket says.
type cgroup struct{ unit, userUnit, container, pod string }

// ofCgroup returns the function that returns one value of the cgroup of a holder, or of the socket
// if that of the holder is not known.
func ofCgroup(value func(cgroup) string) func(*Listener, *Holder) (string, bool) {
	return func(l *Listener, h *Holder) (string, bool) {
		if h != nil && !h.CgroupUnknown {
			return value(cgroup{h.Unit, h.UserUnit, h.Container, h.Pod}), true
		}
		c := cgroup{l.Unit, l.UserUnit, l.Container, l.Pod}
		// If any of the four is set, the socket's cgroup is known.
		return value(c), h == nil && !l.OwnerUnknown || c != cgroup{}
	}
}

// A glob is a compiled value of a glob option. "" matches listeners without such a value.
type glob struct{ globs plugin.Globs }

func compileGlob(pattern string) (glob, error) {
	if pattern == "" {
		return glob{}, nil
	}
	globs, err := plugin.CompileGlobs([]string{pattern})
	return glob{globs}, err
}

func (g glob) match(s string) bool {
	if g.globs == nil {
		return s == ""
	}
	return g.globs.Match(s)
}
