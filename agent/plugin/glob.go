package plugin

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Globs are compiled shell globs: "*" is any characters, "?" one, "[a-z]" and "[!a-z]" one
// of a set, "{a,b}" alternatives, "\" quotes the next character. A glob matches a whole
// string. They do not change, and may be used concurrently.
//
// This package does not use Telegraf's library (gobwas/glob 1.1.0), which refuses
// "[a-z0-9]" and mismatches nested alternatives.
type Globs []func(string) bool

// CompileGlobs compiles patterns. Its error joins those of every bad one, made by Errorf.
// An empty pattern is bad.
func CompileGlobs(patterns []string) (Globs, error) {
	var g Globs
	var errs []error
	for _, p := range patterns {
		matches, err := compileGlob(p)
		if err != nil {
			errs = append(errs, Errorf("pattern %q: %w", p, err))
			continue
		}
		g = append(g, matches)
	}
	return g, errors.Join(errs...)
}

// Match reports whether one of the globs matches. Without globs none does.
func (g Globs) Match(s string) bool {
	for _, matches := range g {
		if matches(s) {
			return true
		}
	}
	return false
}

// globSpecial are the characters with a special meaning in a glob.
const globSpecial = `*?[]{},\`

// EscapeGlob returns the glob that matches a string, and nothing else.
func EscapeGlob(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte(globSpecial, c) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// compileGlob returns a function that reports whether a glob matches. For the forms "x",
// "x*", "*x" and "*x*" it uses package strings, which is many times faster than a regular
// expression.
func compileGlob(glob string) (func(string) bool, error) {
	if glob == "" {
		return nil, errors.New("is empty and matches nothing")
	}
	expr, err := translate(glob)
	if err != nil {
		return nil, err
	}
	if text, begins, ends, ok := plain(glob); ok {
		switch {
		case begins && ends:
			return func(s string) bool { return strings.Contains(s, text) }, nil
		case begins:
			return func(s string) bool { return strings.HasSuffix(s, text) }, nil
		case ends:
			return func(s string) bool { return strings.HasPrefix(s, text) }, nil
		default:
			return func(s string) bool { return s == text }, nil
		}
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, errors.New("is not a glob")
	}
	return re.MatchString, nil
}

// plain returns the text of a glob that is plain text except for a "*" at its beginning
// or end.
func plain(glob string) (text string, begins, ends, ok bool) {
	rest, begins := strings.CutPrefix(glob, "*")
	var b strings.Builder
	for rest != "" {
		i := strings.IndexAny(rest, globSpecial)
		if i < 0 {
			b.WriteString(rest)
			break
		}
		b.WriteString(rest[:i])
		switch {
		case rest[i:] == "*":
			return b.String(), begins, true, true
		case rest[i] == ',' || rest[i] == ']': // not special outside braces and sets
			b.WriteByte(rest[i])
			rest = rest[i+1:]
		case rest[i] == '\\' && i+1 < len(rest):
			b.WriteByte(rest[i+1]) // further bytes of the character are plain text
			rest = rest[i+2:]
		default:
			return "", false, false, false
		}
	}
	return b.String(), begins, false, true
}

// translate translates a shell glob to a regular expression.
func translate(glob string) (string, error) {
	var re strings.Builder
	re.WriteString(`(?s)\A`)
	braces := 0
	runes := []rune(glob)
	for i := 0; i < len(runes); i++ {
		switch c := runes[i]; c {
		case '*':
			re.WriteString(".*")
		case '?':
			re.WriteString(".")
		case '{':
			braces++
			re.WriteString("(?:")
		case '}':
			if braces == 0 {
				return "", errors.New(`"}" without "{"`)
			}
			braces--
			re.WriteString(")")
		case ',':
			if braces > 0 {
				re.WriteString("|")
			} else {
				re.WriteString(",")
			}
		case '[':
			set, length, err := translateSet(runes[i+1:])
			if err != nil {
				return "", err
			}
			re.WriteString(set)
			i += length
		case '\\':
			if i++; i == len(runes) {
				return "", errors.New(`ends in "\"`)
			}
			re.WriteString(regexp.QuoteMeta(string(runes[i])))
		default:
			re.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	if braces > 0 {
		return "", errors.New(`"{" without "}"`)
	}
	re.WriteString(`\z`)
	return re.String(), nil
}

// translateSet translates a set such as "a-z0-9]" or "!a\-c]", without its "[". It also
// returns how many runes it has read.
func translateSet(runes []rune) (class string, length int, err error) {
	var re strings.Builder
	re.WriteString("[")
	i := 0
	if len(runes) > 0 && runes[0] == '!' {
		re.WriteString("^")
		i++
	}
	// next reads one character, quoted or not.
	next := func() (r rune, ok bool) {
		if i < len(runes) && runes[i] == '\\' {
			i++
		}
		if i >= len(runes) {
			return 0, false
		}
		i++
		return runes[i-1], true
	}
	for begin := i; ; {
		if i < len(runes) && runes[i] == ']' {
			if i == begin {
				return "", 0, errors.New("empty set")
			}
			re.WriteString("]")
			return re.String(), i + 1, nil
		}
		low, ok := next()
		high := low
		if ok && i+1 < len(runes) && runes[i] == '-' && runes[i+1] != ']' {
			i++
			high, ok = next()
		}
		if !ok || !slices.Contains(runes[i:], ']') {
			return "", 0, errors.New(`"[" without "]"`)
		}
		if high < low {
			return "", 0, fmt.Errorf("the range %c-%c is empty", low, high)
		}
		fmt.Fprintf(&re, `\x{%x}-\x{%x}`, low, high)
	}
}
