package config

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"sockwatch/agent"
	"sockwatch/agent/plugin"
)

// settings are the options of [agent], completed from the host, and the tags of all
// inputs.
type settings struct {
	options  agent.Options
	hostname string // set even with omit_hostname
	tags     map[string]string
}

// agentSettings decodes [agent] and [global_tags].
func (l *loader) agentSettings() settings {
	s := settings{options: agent.DefaultOptions()}
	t := table{file: noFile, path: "agent", written: redaction{}}
	var bad badOptions
	if l.agent != nil {
		t = *l.agent
		bad = l.set(t, []map[string]string{telegrafAgentOptions}, &s.options)
	}
	l.invalid(t, s.options.Validate(), bad)
	l.resolveHostname(t, &s)
	l.resolveStateDirectory(t, &s.options)

	globalTags := make(map[string]string)
	if l.globalTags != nil {
		l.setStrings(*l.globalTags, globalTags)
		l.invalidTags(*l.globalTags, globalTags)
	}
	host := map[string]string{"host": s.hostname}
	if s.options.OmitHostname {
		host = nil
	}
	s.tags = merged(globalTags, host)
	return s
}

// resolveHostname sets the hostname from the options or, by default, the system.
func (l *loader) resolveHostname(t table, s *settings) {
	if s.hostname = s.options.Hostname; s.hostname != "" {
		return // Validate has checked it
	}
	name, err := l.host.Hostname()
	if err != nil {
		l.errorf(t, t.at, "hostname: %v: set it here", err)
		return
	}
	s.hostname = escapeName(name)
}

// escapeName returns the system's hostname, which may contain any bytes, as printable
// UTF-8. Bytes that are not part of a printable character become \xHH, and a backslash
// becomes \x5c, as in the names that inputs find. So two names never become one.
func escapeName(name string) string {
	var b strings.Builder
	for len(name) > 0 {
		r, size := utf8.DecodeRuneInString(name)
		switch {
		case r == '\\', r == utf8.RuneError && size == 1, !unicode.IsPrint(r):
			for _, c := range []byte(name[:size]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		default:
			b.WriteString(name[:size])
		}
		name = name[size:]
	}
	return b.String()
}

// resolveStateDirectory sets the state directory from the options or, by default,
// $STATE_DIRECTORY. systemd lists all state directories of a unit there, separated by
// colons; the first is used.
func (l *loader) resolveStateDirectory(t table, o *agent.Options) {
	place := "state_directory: "
	if o.StateDirectory == "" {
		list, _ := l.host.Getenv("STATE_DIRECTORY")
		o.StateDirectory, _, _ = strings.Cut(list, ":")
		place = "$STATE_DIRECTORY: "
	}
	problem := ""
	switch clean := filepath.Clean(o.StateDirectory); {
	case o.StateDirectory == "":
	case !filepath.IsAbs(o.StateDirectory):
		problem = "is not an absolute path"
	case filepath.Dir(clean) == clean:
		problem = "is the root directory: name a directory below it"
	}
	if problem != "" {
		l.errorf(t, t.at.key("state_directory"), "%s%q %s", place, t.written.show(o.StateDirectory), problem)
	}
}

// inherit fills in the agent's values for options that an input does not set.
func (l *loader) inherit(in *instance, o *agent.InputOptions, s settings) {
	ownInterval, ownJitter := o.Interval != 0, o.CollectionJitter != 0
	if !ownInterval {
		o.Interval = s.options.Interval
	}
	if !ownJitter {
		o.CollectionJitter = s.options.CollectionJitter
	}
	if ownInterval != ownJitter && o.CollectionJitter > o.Interval { // else both are in one table, and Validate has reported it
		at := in.at.key("interval")
		if ownJitter {
			at = in.at.key("collection_jitter")
		}
		l.errorf(in.table, at, "collection_jitter: %v is longer than the interval (%v)", o.CollectionJitter, o.Interval)
	}
	if o.Timeout == 0 {
		o.Timeout = o.Interval
	}
	o.Tags = merged(s.tags, o.Tags)
}

// invalidTags checks global tags by the rules for tags of inputs.
func (l *loader) invalidTags(t table, tags map[string]string) {
	for key, value := range tags {
		o := agent.InputOptions{Tags: map[string]string{key: value}}
		if err := o.Validate(); err != nil {
			l.errorf(t, t.at.key(key), "%s", strings.TrimPrefix(plugin.Show(err, t.written.show), "tags: "))
		}
	}
}

// decode sets and validates the options of an instance: the common ones and the plugin's.
func (l *loader) decode(in *instance) {
	switch p := in.plugin; {
	case p.NewInput != nil:
		in.common = &agent.InputOptions{}
	case p.NewPusher != nil:
		o := agent.DefaultPushOptions(p)
		in.common = &o
	default:
		in.common = &agent.EndpointOptions{}
	}
	in.settings = in.plugin.Defaults()
	before := len(l.errs)
	bad := l.set(in.table, telegrafOptions(in.plugin), in.common, in.settings)
	l.include(in, bad)
	for _, o := range []plugin.Options{in.common, in.settings} {
		l.invalid(in.table, o.Validate(), bad)
	}
	in.valid = len(l.errs) == before
}
