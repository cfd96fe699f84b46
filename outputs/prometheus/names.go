package prometheus

import "strings"

// metricName returns the name of the metric of a point's field: NAME_FIELD, or NAME alone
// for the field "value".
//
// Point and field names may be any UTF-8. Every character that is not allowed in a classic
// Prometheus name, [a-zA-Z_:][a-zA-Z0-9_:]*, becomes an underscore: such names work in
// every version and need no quotes in a query. If two names become one, series with equal
// labels are dropped as duplicates.
func metricName(point, field string) string {
	if field == "value" {
		return legacy(point, true)
	}
	return legacy(point+"_"+field, true)
}

// labelName returns the name of a tag's label: [a-zA-Z_][a-zA-Z0-9_]*, but with at most
// one leading underscore, because Prometheus reserves names with two (__name__).
func labelName(tag string) string {
	name := legacy(tag, false)
	for strings.HasPrefix(name, "__") {
		name = name[1:]
	}
	return name
}

// legacy returns name with an underscore in place of every character that is not a
// letter, a digit, an underscore or, if colon is set, a colon. A leading digit gets an
// underscore in front.
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
