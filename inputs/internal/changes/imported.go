package changes

import (
	"strconv"
	"strings"
)

// An importKey is the relevant part of a key in a first_seen.json file.
type importKey struct {
	Endpoint
	process string
}

// Import takes over the times of a NAME.first_seen.json file, by key. Versions without a
// history wrote these files. It is called before the first Observe, which must be a baseline
// for the times to count.
func (t *Tracker) Import(firstSeen map[string]int64) {
	t.imported = make(map[importKey]int64, len(firstSeen))
	for text, since := range firstSeen {
		if key, ok := parseImportKey(text); ok {
			if before, known := t.imported[key]; !known || since < before {
				t.imported[key] = since
			}
		}
	}
}

// parseImportKey reads a key such as `uid=0 address="::" port="22" process="sshd" `.
func parseImportKey(text string) (key importKey, ok bool) {
	for text != "" {
		name, rest, found := strings.Cut(text, "=")
		if !found {
			return key, false
		}
		if name == "uid" {
			_, text, _ = strings.Cut(rest, " ")
			continue
		}
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return key, false
		}
		value, _ := strconv.Unquote(quoted)
		switch text = strings.TrimPrefix(rest[len(quoted):], " "); name {
		case "address":
			key.Address = value
		case "netns":
			key.Netns = value
		case "process":
			key.process = value
		case "port":
			port, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return key, false
			}
			key.Port = uint16(port)
		}
	}
	return key, key.Address != ""
}

// importedTime returns when a previous version first saw the endpoint, or 0.
func (t *Tracker) importedTime(e *endpoint) (firstSeen int64) {
	for _, s := range e.current {
		key := importKey{Endpoint: e.Endpoint}
		if len(s.Holders) > 0 {
			key.process = s.Holders[0].Key.Process
		}
		if since := t.imported[key]; since != 0 && (firstSeen == 0 || since < firstSeen) {
			firstSeen = since
		}
	}
	return firstSeen
}
