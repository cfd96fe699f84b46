package expect

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"sockwatch/agent/plugin"
)

// Ports are a port, a range, or a list of these.
type Ports []PortRange

// A PortRange contains the ports from First to Last, inclusive.
type PortRange struct{ First, Last uint16 }

// UnmarshalTOML accepts a decoded TOML value: 443, "8000-8100", or a list of these.
func (p *Ports) UnmarshalTOML(v any) error {
	list, isList := v.([]any)
	if !isList {
		list = []any{v}
	}
	ports := make(Ports, 0, len(list))
	for _, e := range list {
		r, err := parsePorts(e)
		if err != nil {
			return err
		}
		if slices.Contains(ports, r) {
			return plugin.Errorf("%s is listed twice", r.String())
		}
		ports = append(ports, r)
	}
	if len(ports) == 0 {
		return plugin.Errorf("the list is empty: leave the option out for any port")
	}
	*p = ports
	return nil
}

func parsePorts(v any) (PortRange, error) {
	switch v := v.(type) {
	case int64:
		port, err := parsePort(strconv.FormatInt(v, 10))
		return PortRange{port, port}, err
	case string:
		low, high, isRange := strings.Cut(v, "-")
		if !isRange {
			port, err := parsePort(v)
			return PortRange{port, port}, err
		}
		first, err := parsePort(strings.TrimSpace(low))
		if err != nil {
			return PortRange{}, err
		}
		last, err := parsePort(strings.TrimSpace(high))
		if err == nil && last < first {
			err = plugin.Errorf(`the range %q is empty: write "%d-%d"`, v, last, first)
		}
		return PortRange{first, last}, err
	default:
		return PortRange{}, plugin.Errorf(`%v is neither a port nor a range such as "8000-8100"`, v)
	}
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil:
		return 0, plugin.Errorf(`%q is neither a port nor a range such as "8000-8100"`, s)
	case n < 1 || n > 65535:
		return 0, plugin.Errorf("%d is not a port: ports are 1 to 65535", n)
	default:
		return uint16(n), nil
	}
}

// contain reports whether they include a port.
func (p Ports) contain(port uint16) bool {
	return slices.ContainsFunc(p, func(r PortRange) bool { return r.contains(port) })
}

// count returns the number of ports. A port that is in two ranges counts twice.
func (p Ports) count() (n int) {
	for _, r := range p {
		n += int(r.Last-r.First) + 1
	}
	return n
}

// String returns a list such as "80,443,8000-8100".
func (p Ports) String() string {
	texts := make([]string, len(p))
	for i, r := range p {
		texts[i] = r.String()
	}
	return strings.Join(texts, ",")
}

// MarshalTOML writes the form that UnmarshalTOML reads.
func (p Ports) MarshalTOML() ([]byte, error) {
	texts := make([]string, len(p))
	for i, r := range p {
		if texts[i] = r.String(); r.First != r.Last {
			texts[i] = strconv.Quote(texts[i])
		}
	}
	if len(texts) == 1 {
		return []byte(texts[0]), nil
	}
	return []byte("[" + strings.Join(texts, ", ") + "]"), nil
}

func (r PortRange) contains(port uint16) bool { return r.First <= port && port <= r.Last }

// String returns "443" or "8000-8100".
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
}

func comparePorts(a, b PortRange) int {
	return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
}
