package prometheus

import "strings"

// metricName returns the name of the metric of a point's field: NAME_FIELD, or
// NAME alone for the field "value".
//
// Point and field names of other plugins may hold any UTF-8. Every character that
// the classic names of Prometheus, [a-zA-Z_:][a-zA-Z0-9_:]*, do not have becomes
// an underscore: such names work in every version and need no quotes in a query.
// Two names that become one are caught as duplicate series where their labels are
// equal too.
func metricName(point, field string) string {
	if field == "value" {
		return legacy(point, true)
	}
	return legacy(point+"_"+field, true)
}

// labelName returns the name of a tag's label: [a-zA-Z_][a-zA-Z0-9_]*, without the
// two leading underscores that Prometheus keeps for itself (__name__).
func labelName(tag string) string {
	name := legacy(tag, false)
	for strings.HasPrefix(name, "__") {
		name = name[1:]
	}
	return name
}

// legacy returns name with an underscore instead of every character that is
// neither a letter, a digit, an underscore nor, where allowed, a colon; and one
// before a leading digit.
func legacy(name string, colon bool) string {
	legal := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || colon && r == ':'
	}
	name = strings.Map(func(r rune) rune {
		if legal(r) {
			return r
		}
		return '_'
	}, name)
	if name == "" || '0' <= name[0] && name[0] <= '9' {
		return "_" + name
	}
	return name
}
