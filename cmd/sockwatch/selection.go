package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sockwatch/agent/filter"
	"sockwatch/agent/metric"
)

// A selection selects listeners. All flags that are set must match; each can be repeated.
// The tags of its fields are the help.
type selection struct {
	Port     filter.Ports    `placeholder:"PORT" help:"Only these ports: 22, 8000-8100, or a list such as 80,443,8000-8100."`
	Process  filter.Patterns `placeholder:"GLOB" help:"Only listeners of these processes: a glob or a list, such as nginx,php-fpm*."`
	User     filter.Patterns `placeholder:"GLOB" help:"Only listeners of these users: by name, or by number if they have none."`
	Unit     filter.Patterns `placeholder:"GLOB" help:"Only listeners of these units, containers or pods, as shown in the column UNIT, such as ssh.service."`
	Exposure exposures       `placeholder:"CLASS" help:"Only listeners of these classes: public, private, link_local, loopback or none."`
}

// match reports whether a listener is selected.
func (s *selection) match(p *metric.Point) bool {
	return s.matchKnown(p) && s.matchOwner(p)
}

// mayMatch reports whether a listener is selected, or may be if its owner could be read.
func (s *selection) mayMatch(p *metric.Point) bool {
	return s.matchKnown(p) && (ownerUnreadable(p) || s.matchOwner(p))
}

// matchKnown checks what is known of every listener.
func (s *selection) matchKnown(p *metric.Point) bool {
	return (s.Port.Empty() || s.Port.Match(p.Tag("port"))) &&
		matchTags(&s.User, p, "user") &&
		(s.Exposure.Empty() || s.Exposure.Match(exposure(p)))
}

// matchOwner checks what depends on the owner.
func (s *selection) matchOwner(p *metric.Point) bool {
	return matchTags(&s.Process, p, "process") && matchTags(&s.Unit, p, "unit", "user_unit", "container", "pod")
}

// matchTags reports whether patterns are empty or match one of the tags of p.
func matchTags(patterns *filter.Patterns, p *metric.Point, keys ...string) bool {
	return patterns.Empty() || slices.ContainsFunc(keys, func(key string) bool {
		value := p.Tag(key)
		return value != "" && patterns.Match(value)
	})
}

// exposureClasses are the values of --exposure, widest first. "none" is for listeners
// that no peer can reach; they do not have the tag.
var exposureClasses = [...]string{"public", "private", "link_local", "loopback", "none"}

// exposure returns the class of a listener.
func exposure(p *metric.Point) string {
	if class := p.Tag("exposure"); class != "" {
		return class
	}
	return "none"
}

func ownerUnreadable(p *metric.Point) bool { return p.Tag("owner") == "unreadable" }

// exposures are patterns of exposure classes.
type exposures struct{ filter.Patterns }

// UnmarshalText adds classes to e. A pattern that matches no class is an error: the list
// would be empty, and look like a safe host.
func (e *exposures) UnmarshalText(text []byte) error {
	var added filter.Patterns
	if err := added.UnmarshalText(text); err != nil {
		return err
	}
	var errs []error
	for _, class := range added.Texts() {
		var one filter.Patterns
		if err := one.UnmarshalText([]byte(class)); err != nil || !slices.ContainsFunc(exposureClasses[:], one.Match) {
			errs = append(errs, fmt.Errorf("unknown class %q (known: %s)", class, strings.Join(exposureClasses[:], ", ")))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return e.Patterns.UnmarshalText(text)
}

func (exposures) choices() []string { return exposureClasses[:] }
