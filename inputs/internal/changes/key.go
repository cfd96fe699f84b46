package changes

import "strings"

// generalized returns the key with the parts that are generated at each start replaced by
// "*": instances of units (app@7.service), trailing digits, and hex runs of at least 8
// digits, including UUIDs. It is used only for comparisons.
func (k Key) generalized() Key {
	k.Process = generalize(k.Process)
	k.Unit = generalizeUnit(k.Unit)
	k.UserUnit = generalizeUnit(k.UserUnit)
	return k
}

func generalizeUnit(unit string) string {
	name, suffix := unit, ""
	for _, s := range [...]string{".service", ".scope"} {
		if stem, ok := strings.CutSuffix(unit, s); ok {
			name, suffix = stem, s
		}
	}
	if at := strings.IndexByte(name, '@'); at >= 0 && at+1 < len(name) {
		name = name[:at+1] + "*"
	}
	return generalize(name) + suffix
}

func generalize(name string) string {
	name = replaceHexRuns(name)
	stem := strings.TrimRight(name, "0123456789")
	if len(stem) < len(name) {
		return stem + "*"
	}
	return name
}

// generatedNetns reports whether the name of a network namespace is generated, so that the
// successor of a container gets another one: a number, or a name with a hex run.
func generatedNetns(name string) bool {
	return name != "" && (strings.Trim(name, "0123456789") == "" || replaceHexRuns(name) != name)
}

// replaceHexRuns replaces every run of at least 8 hex digits by "*", together with the rest
// of the UUID that it begins, if any.
func replaceHexRuns(s string) string {
	const minRun = 8
	var b strings.Builder
	done := 0 // length of the part of s that is in b
	for i := 0; i < len(s); {
		n := hexRun(s[i:])
		if n < minRun {
			i += max(n, 1)
			continue
		}
		b.WriteString(s[done:i])
		b.WriteByte('*')
		i += n
		i += uuidRest(s[i:])
		done = i
	}
	if done == 0 {
		return s
	}
	b.WriteString(s[done:])
	return b.String()
}

// uuidRest returns the length of the last four groups of a UUID at the beginning of s, or 0.
func uuidRest(s string) int {
	end := 0
	for _, group := range [...]int{4, 4, 4, 12} {
		if end >= len(s) || s[end] != '-' && s[end] != '_' || hexRun(s[end+1:]) != group {
			return 0
		}
		end += 1 + group
	}
	return end
}

func hexRun(s string) (n int) {
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] >= 'a' && s[n] <= 'f' || s[n] >= 'A' && s[n] <= 'F') {
		n++
	}
	return n
}
