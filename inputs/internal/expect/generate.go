package expect

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"sockwatch/agent/plugin"
)

// A Suggestion is a rule made from listeners, and a comment.
type Suggestion struct {
	Comment string // one line
	Rule    Expect
}

// Suggest returns rules that hold for these listeners, and still hold after their
// services are restarted. Listeners on ports of the ephemeral range
// (net.ipv4.ip_local_port_range) share a rule for each process. The order of the listeners
// does not matter.
func Suggest(listeners []*Listener, ephemeral PortRange) []Suggestion {
	byKey := make(map[string]*suggested)
	for _, l := range listeners {
		s := describe(l, ephemeral)
		if known := byKey[s.key()]; known == nil {
			byKey[s.key()] = s
		} else if s.isEphemeral && !slices.Contains(known.rule.Address, s.rule.Address[0]) {
			known.rule.Address = append(known.rule.Address, s.rule.Address[0])
		}
	}
	all := make([]*suggested, 0, len(byKey))
	for _, s := range byKey {
		slices.Sort(s.rule.Address)
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *suggested) int {
		return cmp.Or(comparePorts(a.rule.Port[0], b.rule.Port[0]), cmp.Compare(a.key(), b.key()))
	})
	nameAll(all)
	suggestions := make([]Suggestion, len(all))
	for i, s := range all {
		suggestions[i] = Suggestion{Comment: s.comment(), Rule: s.rule}
	}
	return suggestions
}

// A suggested is a rule under construction.
type suggested struct {
	rule        Expect
	isEphemeral bool
	process     string // for the comment, without generated parts; "" if unknown
	unit        string // for the comment, too; "" for a transient unit
	address     string
	activated   bool // a manager holds the socket
	unknown     bool // the owner is unknown
}

// describe returns the rule for one listener.
func describe(l *Listener, ephemeral PortRange) *suggested {
	s := &suggested{isEphemeral: ephemeral.contains(l.Port), address: l.address(), unknown: l.OwnerUnknown}
	r := &s.rule
	r.SetDefaults()
	r.Port = Ports{{l.Port, l.Port}}
	if s.isEphemeral {
		r.Port = Ports{ephemeral}
	}
	r.Address = plugin.Strings{plugin.EscapeGlob(l.address())}
	if l.User != "" && !l.UserPending {
		r.User = plugin.Strings{plugin.EscapeGlob(l.User)}
	}
	if !generatedName.MatchString(l.Netns) && l.Netns != "" {
		r.Netns = plugin.Strings{plugin.EscapeGlob(l.Netns)}
	}
	unit, userUnit := l.Unit, l.UserUnit
	owner, manager := serviceOf(l)
	if owner == nil {
		owner = manager
	}
	if owner != nil {
		s.process = withoutNumber(owner.Process, unquoted)
		r.Process, r.Exe = owner.names(), owner.programs()
		if !owner.CgroupUnknown {
			unit, userUnit = owner.Unit, owner.UserUnit
		}
	}
	if manager != nil { // which is alone again when the service has ended
		s.activated = true
		if manager != owner {
			r.Process = appendNew(r.Process, manager.names())
			if r.Exe != nil && manager.Exe != "" {
				r.Exe = appendNew(r.Exe, manager.programs())
			} else {
				r.Exe = nil
			}
		}
		return s
	}
	r.Unit, r.UserUnit = unitGlob(unit), unitGlob(userUnit)
	if s.unit = unitWithoutNumber(userUnit, unquoted); s.unit == "" {
		s.unit = unitWithoutNumber(unit, unquoted)
	}
	return s
}

// serviceOf returns the first holder that is not a manager, and the first that is; nil if
// there is none.
func serviceOf(l *Listener) (service, manager *Holder) {
	for i := range l.Holders {
		h := &l.Holders[i]
		switch {
		case h.Manager && manager == nil:
			manager = h
		case !h.Manager && service == nil:
			service = h
		}
	}
	return service, manager
}

func (h *Holder) names() plugin.Strings {
	if h.Process == "" {
		return nil
	}
	return plugin.Strings{withoutNumber(h.Process, plugin.EscapeGlob)}
}

func (h *Holder) programs() plugin.Strings {
	if h.Exe == "" {
		return nil
	}
	return plugin.Strings{generalize(h.Exe, plugin.EscapeGlob)}
}

func appendNew(list, more plugin.Strings) plugin.Strings {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

var (
	// generated matches parts that differ after a restart: UUIDs, runs of hexadecimal
	// digits such as container ids, and numbers such as pids.
	generated = regexp.MustCompile(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-f]{8,}|[0-9]{4,}`)
	// numbered matches a process that is one of several: "worker-3", "job12".
	numbered = regexp.MustCompile(`^(.*[-_:#/ ][0-9]+|.*[0-9]{2,})$`)
	// generatedName matches names of network namespaces that a program has generated.
	generatedName = regexp.MustCompile(`^[0-9]+$|[0-9a-f]{8}`)
	// transient matches units that exist only once: of a login, or made by systemd-run.
	transient = regexp.MustCompile(`^(session-.*\.scope|run-.*\.(scope|service))$`)
	// unitParts splits the name of a unit into the part before a number or an instance, these,
	// and the type.
	unitParts = regexp.MustCompile(`^(.*?)(@.*|[0-9]+)?(\.[a-z]+)$`)
)

// generalize returns a glob for a name, with * for its generated parts; the rest is quoted.
func generalize(name string, quote func(string) string) string {
	var b strings.Builder
	end := 0
	for _, at := range generated.FindAllStringIndex(name, -1) {
		b.WriteString(quote(name[end:at[0]]) + "*")
		end = at[1]
	}
	return b.String() + quote(name[end:])
}

func unquoted(s string) string { return s }

// withoutNumber is generalize for the name of a process.
func withoutNumber(process string, quote func(string) string) string {
	if numbered.MatchString(process) {
		return anyEnd(generalize(strings.TrimRight(process, "0123456789"), quote))
	}
	return generalize(process, quote)
}

func anyEnd(glob string) string { return strings.TrimSuffix(glob, "*") + "*" }

// unitGlob returns the glob for a unit without its instance and other generated parts; nil
// for a transient unit.
func unitGlob(unit string) plugin.Strings {
	if glob := unitWithoutNumber(unit, plugin.EscapeGlob); glob != "" {
		return plugin.Strings{glob}
	}
	return nil
}

// unitWithoutNumber is generalize for the name of a unit.
func unitWithoutNumber(unit string, quote func(string) string) string {
	parts := unitParts.FindStringSubmatch(unit)
	switch {
	case unit == "" || transient.MatchString(unit):
		return ""
	case parts == nil:
		return generalize(unit, quote)
	case parts[2] == "":
		return generalize(parts[1], quote) + parts[3]
	case parts[2][0] == '@':
		return generalize(parts[1], quote) + "@*" + parts[3]
	default:
		return anyEnd(generalize(parts[1], quote)) + parts[3]
	}
}

// key distinguishes rules. For an ephemeral port it has everything but the addresses.
func (s *suggested) key() string {
	r := s.rule
	if s.isEphemeral {
		r.Address = nil
	}
	return fmt.Sprintf("%v %q %q %q %q %q %q %q", r.Port, r.Address, r.Process, r.Exe, r.User, r.Unit, r.UserUnit, r.Netns)
}

// nameAll gives each rule a unique name: "sshd-22"; if several would get the same one, with
// the address, and if that is not unique, with a number.
func nameAll(all []*suggested) {
	names := make(map[string]int)
	for _, s := range all {
		names[s.shortName()]++
	}
	used := make(map[string]bool)
	for _, s := range all {
		name := s.shortName()
		if names[name] > 1 && !s.isEphemeral {
			name += "-" + s.address
		}
		s.rule.Name = name
		for n := 2; used[s.rule.Name]; n++ {
			s.rule.Name = fmt.Sprintf("%s-%d", name, n)
		}
		used[s.rule.Name] = true
	}
}

func (s *suggested) shortName() string {
	process := cmp.Or(strings.Trim(s.process, "*-_:#/ "), "port")
	if s.isEphemeral {
		return process + "-ephemeral"
	}
	return process + "-" + s.rule.Port.String()
}

// comment describes the rule.
func (s *suggested) comment() string {
	owner := cmp.Or(s.process, "the kernel, or nobody who is known")
	switch {
	case s.unknown && s.process == "":
		owner = "an owner that could not be read"
	case s.activated:
		owner += ", on a socket of the service manager"
	case s.unit != "":
		owner += " of " + s.unit
	}
	if s.isEphemeral {
		return "Ephemeral ports: " + owner
	}
	return fmt.Sprintf("Port %v of %s: %s", s.rule.Port, s.address, owner)
}

// Print returns the rules as TOML: [[expect]] of a rule file, or with the table's
// prefix ("inputs.tcp_listen") [[inputs.tcp_listen.expect]].
func Print(rules []Suggestion, prefix string) string {
	if prefix != "" {
		prefix += "."
	}
	var b strings.Builder
	b.WriteString("# What listens on this host now. Review it: what should not listen is listed, too.\n" +
		"# To have everything else reported, set unlisted = \"unexpected\" in [[inputs.tcp_listen]].\n")
	for _, s := range rules {
		r := &s.Rule
		ports, _ := r.Port.MarshalTOML()
		fmt.Fprintf(&b, "\n# %s\n[[%sexpect]]\nname = %s\nport = %s\n", s.Comment, prefix, tomlString(r.Name), ports)
		printGlobs(&b, "address", r.Address)
		for _, option := range globOptions {
			printGlobs(&b, option.name, *option.patterns(&r.Criteria))
		}
	}
	return b.String()
}

func printGlobs(b *strings.Builder, option string, globs plugin.Strings) {
	texts := make([]string, len(globs))
	for i, g := range globs {
		texts[i] = tomlString(g)
	}
	switch len(texts) {
	case 0:
	case 1:
		fmt.Fprintf(b, "%s = %s\n", option, texts[0])
	default:
		fmt.Fprintf(b, "%s = [%s]\n", option, strings.Join(texts, ", "))
	}
}

// tomlString quotes a string. A variable in it would be expanded when the file is read.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range strings.ReplaceAll(s, "${", "$${") {
		switch {
		case r == '"' || r == '\\':
			b.WriteRune('\\')
			b.WriteRune(r)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(`\U` + strings.ToUpper(fmt.Sprintf("%08s", strconv.FormatInt(int64(r), 16))))
		}
	}
	return b.String() + `"`
}
