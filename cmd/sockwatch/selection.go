package main

import (
	"errors"
	"slices"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
)

// A selection selects listeners. All flags that are set must match; each can be repeated.
// The tags of its fields are the help.
type selection struct {
	Port     plugin.Ports    `placeholder:"PORT" help:"Only these ports: 22, 8000-8100, or a list such as 80,443,8000-8100."`
	Process  plugin.Patterns `placeholder:"GLOB" help:"Only listeners of these processes: a glob or a list, such as nginx,php-fpm*."`
	User     plugin.Patterns `placeholder:"GLOB" help:"Only listeners of these users: by name, or by number if they have none."`
	Unit     plugin.Patterns `placeholder:"GLOB" help:"Only listeners of these units, containers or pods, as shown in the column UNIT, such as ssh.service."`
	Exposure exposures       `placeholder:"CLASS" help:"Only listeners of these classes: public, private, link_local, loopback or none."`
}

// warn prints on stderr which globs look like regular expressions: an empty list would look like
// an answer.
func (s *selection) warn(p *program) {
	err := errors.Join(
		plugin.WarnOfRegexps("--process", s.Process.Texts(), true),
		plugin.WarnOfRegexps("--user", s.User.Texts(), true),
		plugin.WarnOfRegexps("--unit", s.Unit.Texts(), false),
	)
	if err != nil {
		printError(p.stderr, err)
	}
}

// match reports whether a listener is selected.
func (s *selection) match(p *metric.Point) bool {
	return s.matchKnown(p) && s.matchOwner(p)
}

// mayMatch reports whether a listener is selected, or may be if its owner could be read.
func (s *selection) mayMatch(p *metric.Point) bool {
	return s.matchKnown(p) && (ownerUnreadable(p) || s.matchOwner(p))
}

// ownerUnknown reports whether it is not known who owns a listener.
func ownerUnknown(p *metric.Point) bool { return p.Tag("process") == "" && p.Tag("owner") != "none" }

// mayMatchChange reports whether a change of a listener is selected, by what the listener is
// or was, or may be if its owner were known.
func (s *selection) mayMatchChange(e *metric.Point) bool {
	if _, many := e.Field("count"); many { // stands for others, of which only the user is known
		return matchTags(&s.User, e, "user")
	}
	was, changed := before(e)
	return s.mayBe(e) || changed && s.mayBe(&was)
}

func (s *selection) mayBe(p *metric.Point) bool {
	return s.matchKnown(p) && (ownerUnknown(p) || s.matchOwner(p))
}

// previousOwnerKeys are the tags that an event has as fields too, with "previous_" before
// them, if another owner had the listener.
var previousOwnerKeys = [...]string{"process", "user", "unit", "user_unit", "container"}

// before returns the listener as it was before a change of its owner, address or
// exposure, and reports whether it was such a change.
func before(e *metric.Point) (metric.Point, bool) {
	var keys []string
	switch e.Tag("event") {
	case "owner_changed":
		keys = previousOwnerKeys[:]
	case "exposure_changed":
		keys = []string{"exposure"}
		if _, moved := e.Field("previous_address"); moved {
			keys = append(keys, "address")
		}
	default:
		return metric.Point{}, false
	}
	was := metric.Point{Name: e.Name}
	for _, t := range e.Tags {
		if !slices.Contains(keys, t.Key) {
			was.Tags = append(was.Tags, t)
		}
	}
	for _, key := range keys {
		if v, ok := e.Field("previous_" + key); ok && v.String() != "none" {
			was.Tags = append(was.Tags, metric.Tag{Key: key, Value: v.String()})
		}
	}
	if pid, ok := e.Field("previous_pid"); ok {
		was.Fields = append(was.Fields, metric.Field{Key: "pid", Value: pid})
	}
	metric.SortTags(was.Tags)
	return was, true
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
func matchTags(patterns *plugin.Patterns, p *metric.Point, keys ...string) bool {
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
type exposures struct{ plugin.Patterns }

// UnmarshalText adds classes to e. A pattern that matches no class is an error: the list
// would be empty, and look like a safe host.
func (e *exposures) UnmarshalText(text []byte) error {
	var added plugin.Patterns
	if err := added.UnmarshalText(text); err != nil {
		return err
	}
	var errs []error
	for _, class := range added.Texts() {
		var one plugin.Patterns
		if err := one.UnmarshalText([]byte(class)); err != nil || !slices.ContainsFunc(exposureClasses[:], one.Match) {
			errs = append(errs, unknown("class", class, exposureClasses[:]))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return e.Patterns.UnmarshalText(text)
}

func (exposures) choices() []string { return exposureClasses[:] }
