package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"sockwatch/agent/health"
	"sockwatch/agent/metric"
)

// An object is a JSON object. encoding/json sorts its keys.
type object = map[string]any

// renderLineSchema returns docs/jsonlines.schema.json: the fields of every point from
// their descriptions, and the additions of pointRules.
func renderLineSchema(t *testing.T) string {
	t.Helper()
	descs := slices.Clone(health.Descs)
	for _, p := range plugins() {
		if p.NewInput != nil { // the fields of an endpoint are not points
			descs = append(descs, p.Descs...)
		}
	}
	fields := make(map[string]object)
	for _, d := range descs {
		if fields[d.Name] == nil {
			fields[d.Name] = object{}
		}
		fields[d.Name][d.Field] = fieldSchema(d)
	}
	definitions, choices := object{}, []any{}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		definitions[name] = pointSchema(t, name, fields[name])
		choices = append(choices, object{
			"if":   object{"properties": object{"name": object{"const": name}}},
			"then": object{"$ref": "#/$defs/" + name},
		})
	}
	for name := range pointRules {
		if fields[name] == nil {
			t.Errorf("pointRules has %s, which no plugin describes", name)
		}
	}
	schema := object{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "A line of sockwatch",
		"description": "One point, as data_format = \"json\" writes it to stdout, to a file, and as \"sockwatch list --json\" prints it. " +
			"Points with the names under $defs have these fields and no others; they may have more tags (global_tags, tags of an instance, labels of a rule). " +
			"The options fieldinclude, fieldexclude, taginclude and tagexclude remove what is required here.",
		"type":                 "object",
		"required":             []string{"name", "tags", "fields", "timestamp"},
		"additionalProperties": false,
		"properties": object{
			"name":   object{"type": "string", "minLength": 1, "description": "Name of the point"},
			"tags":   object{"type": "object", "additionalProperties": object{"type": "string", "minLength": 1}, "description": "What distinguishes it from other points of the name"},
			"fields": object{"type": "object", "additionalProperties": object{"type": []string{"number", "string", "boolean"}}, "description": "What was measured"},
			"timestamp": object{
				"description": "RFC 3339 in UTC with nine digits, or, with another timestamp_format, Unix time in s, ms, us or ns",
				"anyOf": []any{
					object{"type": "string", "format": "date-time", "pattern": `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$`},
					object{"type": "integer"},
				},
			},
		},
		"allOf": choices,
		"$defs": definitions,
	}
	return indentedJSON(t, schema)
}

// renderAPISchema returns docs/api.schema.json: what the live page answers to scripts.
func renderAPISchema(t *testing.T) string {
	return indentedJSON(t, object{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "An answer of /api/listeners or /api/events",
		"description": "The listeners, by port and address, or the events, earliest first, that the parameter q selects. " +
			"Readers who are neither on the host nor authenticated get no programs, parents and reasons; nobody gets arguments.",
		"type":     "array",
		"maxItems": 5000,
		"items":    object{"$ref": "jsonlines.schema.json"},
	})
}

func indentedJSON(t *testing.T, value any) string {
	t.Helper()
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// fieldSchema derives the type of a field from its description.
func fieldSchema(d metric.Desc) object {
	s := object{"description": d.Help}
	switch {
	case d.Name == "custom_port_exporter":
		s["type"] = "integer"
	case d.Type == metric.Untyped:
		s["type"] = "string"
	case d.Name == "tcp_listen_expect" && d.Field == "up":
		s["type"], s["enum"] = "integer", []int{0, 1}
	case d.Name == "tcp_listen_violation" && d.Field == "active":
		s["type"], s["const"] = "integer", 1
	case strings.HasPrefix(d.Help, "Whether ") || strings.Contains(d.Help, ": whether "):
		s["type"] = "boolean"
	case strings.HasSuffix(d.Unit, "seconds"):
		s["type"], s["minimum"] = "number", 0
	default:
		s["type"], s["minimum"] = "integer", 0
	}
	if values := fieldValues[d.Name+"."+d.Field]; values != nil {
		s["enum"] = values
	}
	if d.Field == "exe_sha256" {
		s["pattern"] = "^[0-9a-f]{64}$"
	}
	return s
}

// fieldValues lists all values of fields that have only a few.
var fieldValues = map[string][]string{
	"tcp_listen.expected":                verdicts,
	"tcp_listen_event.cause":             {"host_address", "rebound"},
	"tcp_listen_event.previous_exposure": {"none", "loopback", "link_local", "private", "public"},
	"tcp_listen_rule_event.verdict":      {"forbidden", "no"},
}

var verdicts = []string{"forbidden", "no", "undecided", "yes"}

// A pointRule is what the schema requires of a point beyond the types of its fields.
type pointRule struct {
	tags   []string // required
	fields []string // required
	values map[string][]string
	cases  []any // further schemas that all apply
}

// listenerTags are the values of tags that tcp_listen and its events have.
var listenerTags = map[string][]string{
	"exposure": {"loopback", "link_local", "private", "public"},
	"family":   {"dual", "ipv4", "ipv6"},
	"owner":    {"exited", "none", "pending", "resolved", "unreadable"},
}

var pointRules = map[string]pointRule{
	"tcp_listen": {
		tags:   []string{"address", "family", "owner", "port", "user"},
		fields: []string{"processes", "sockets", "uid"},
		values: listenerTags,
		cases: []any{
			when(tagIs("owner", "resolved"), requires("fields", "pid"), requires("tags", "process")),
		},
	},
	"tcp_listen_overflow": {tags: []string{"user"}},
	"custom_port_exporter": {
		tags: []string{"port", "state"}, fields: []string{"value"},
		values: map[string][]string{"state": {"10"}},
	},
	"tcp_listen_event": {
		tags:   []string{"event", "user"},
		fields: []string{"history", "sequence", "uid", "while_down", "window_seconds"},
		values: with(listenerTags, map[string][]string{
			"event":    {"opened", "returned", "closed", "restarted", "owner_changed", "exposure_changed"},
			"expected": verdicts,
		}),
		cases: []any{
			unless(requires("fields", "count"), requires("tags", "address", "family", "owner", "port")),
			when(tagIs("event", "restarted", "owner_changed"), requires("fields", "down_seconds")),
			when(tagIs("event", "exposure_changed"), requires("fields", "previous_exposure", "cause")),
			when(requires("fields", "count"), object{"properties": object{"tags": object{"properties": object{"event": object{"enum": []string{"opened", "returned", "closed"}}}}}}),
		},
	},
	"tcp_listen_events": {
		tags: []string{"event"}, fields: []string{"total"},
		values: map[string][]string{
			"event":    {"opened", "returned", "closed", "restarted", "owner_changed", "exposure_changed"},
			"expected": verdicts,
		},
	},
	"tcp_listen_expect": {
		tags: []string{"name", "rule"}, fields: []string{"matches", "undecided"},
		values: map[string][]string{"rule": {"expect", "forbid"}},
	},
	"tcp_listen_violation": {
		tags: []string{"verdict"}, fields: []string{"active"},
		values: map[string][]string{"verdict": {"forbidden", "no"}, "exposure": listenerTags["exposure"]},
		cases:  []any{when(tagIs("verdict", "forbidden"), requires("tags", "rule"))},
	},
	"tcp_listen_unexpected": {
		tags: []string{"exposure"}, fields: []string{"listeners"},
		values: map[string][]string{"exposure": fieldValues["tcp_listen_event.previous_exposure"]},
	},
	"tcp_listen_history": {fields: []string{"dropped_events_total", "waiting_events"}},
	"tcp_listen_source": {
		tags: []string{"listen_events", "listener_source", "owner_source"}, fields: []string{"info"},
		values: map[string][]string{
			"listen_events": {"off", "on"}, "listener_source": {"netlink", "procfs"}, "owner_source": {"bpf", "procfs"},
		},
		cases: []any{when(tagIs("listen_events", "on"), requires("fields", "lost_events_total"))},
	},
	"tcp_listen_rules": {tags: []string{"digest"}, fields: []string{"expect", "allow", "forbid"}},
	"tcp_listen_rule_event": {
		tags: []string{"event"}, fields: []string{"history", "sequence", "while_down"},
		values: with(listenerTags, map[string][]string{
			"event": {"failed", "restored", "violated", "cleared"}, "rule": {"expect", "forbid"},
		}),
		cases: []any{
			when(tagIs("event", "failed"), requires("fields", "matches", "undecided")), // and why, except for strangers to the live page
			when(tagIs("event", "restored", "cleared"), requires("fields", "lasted_seconds")),
			when(tagIs("event", "failed", "restored"), requires("tags", "name", "rule")),
			when(tagIs("event", "violated", "cleared"), requires("fields", "verdict")),
		},
	},
}

// pointSchema returns the schema of the points of a name.
func pointSchema(t *testing.T, name string, fields object) object {
	t.Helper()
	rule := pointRules[name]
	for _, field := range rule.fields {
		if fields[field] == nil {
			t.Errorf("pointRules: %s has no field %s", name, field)
		}
	}
	fieldsSchema := object{"additionalProperties": false, "properties": fields}
	if rule.fields != nil {
		fieldsSchema["required"] = rule.fields
	}
	tags := object{}
	for _, tag := range slices.Sorted(maps.Keys(rule.values)) {
		tags[tag] = object{"enum": rule.values[tag]}
	}
	for tag, pattern := range map[string]string{"port": `^[0-9]{1,5}$`, "digest": "^[0-9a-f]{12}$"} {
		if slices.Contains(rule.tags, tag) && name != "custom_port_exporter" {
			tags[tag] = object{"pattern": pattern}
		}
	}
	s := object{"properties": object{"fields": fieldsSchema}}
	if len(tags) > 0 || rule.tags != nil {
		tagsSchema := object{"properties": tags}
		if rule.tags != nil {
			tagsSchema["required"] = rule.tags
		}
		s["properties"].(object)["tags"] = tagsSchema
	}
	if rule.cases != nil {
		s["allOf"] = rule.cases
	}
	return s
}

// tagIs returns a schema for points with a tag that has one of the values.
func tagIs(tag string, values ...string) object {
	return object{"properties": object{"tags": object{"required": []string{tag}, "properties": object{tag: object{"enum": values}}}}}
}

// requires returns a schema for points that have all of the tags, or fields.
func requires(what string, keys ...string) object {
	return object{"properties": object{what: object{"required": keys}}}
}

func when(condition object, then ...object) object {
	if len(then) == 1 {
		return object{"if": condition, "then": then[0]}
	}
	return object{"if": condition, "then": object{"allOf": then}}
}

func unless(condition, then object) object { return object{"if": condition, "else": then} }

func with(a, b map[string][]string) map[string][]string {
	c := maps.Clone(a)
	maps.Copy(c, b)
	return c
}

// Every point of an input has a rule, and no rule names a tag that does not exist: a new
// point cannot be forgotten.
func TestLineSchemaKnowsEveryPoint(t *testing.T) {
	for _, p := range plugins() {
		if p.NewInput == nil {
			continue
		}
		for _, d := range p.Descs {
			rule, ok := pointRules[d.Name]
			if !ok {
				t.Errorf("pointRules has no %s: which tags and fields does each have?", d.Name)
			}
			for _, tag := range slices.Concat(rule.tags, slices.Collect(maps.Keys(rule.values))) {
				if !slices.Contains(p.Tags, tag) {
					t.Errorf("pointRules: %s: %s has no tag %s", d.Name, p.Name, tag)
				}
			}
		}
	}
}
