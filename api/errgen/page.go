package main

import (
	"bytes"
	"fmt"
	"strings"
)

// page writes docs/reference/errors.md.
func page(codes []code, c catalogue) []byte {
	var b bytes.Buffer
	b.WriteString(`# Errors

<!-- Generated from api/errors.yaml by ` + "`go generate ./api`" + `. Don't edit. -->

Every error is ` + "`application/problem+json`" + ` (RFC 9457). Branch on ` + "`code`" + `: it never changes its meaning. Show ` + "`detail`" + ` to people;
send ` + "`Accept-Language: zh`" + ` for Chinese. ` + "`retryable: true`" + ` means that the same request can succeed later, after
` + "`retry_after_seconds`" + ` where that is set. Each code has a page at ` + "`/docs/problems/{code}`" + ` on the gateway itself.

400 means that the request can't be read. 422 means that it was read, and a field is missing or breaks a rule: ` + "`errors[]`" + ` names
the fields by JSON pointer.

## Codes of the API

`)
	table := func(wheres ...string) {
		b.WriteString("| status | code | what to do | 说明 | retry |\n|---|---|---|---|---|\n")
		for _, e := range codes {
			for _, w := range wheres {
				if e.Where == w {
					fmt.Fprintf(&b, "| %d | `%s` | %s | %s | %s |\n", kinds[e.Kind].status, e.Name, cell(e.Detail[0]), cell(e.Detail[1]), yes(e.Retryable))
				}
			}
		}
		b.WriteString("\n")
	}
	table("", "edge")
	b.WriteString("## Codes inside operations and on the pages of authorisation links\n\n")
	table("operation", "page")
	b.WriteString(`## What WeChat's errcodes become

You never see these numbers except in ` + "`upstream.errcode`" + `. The same number means different things in different families of
calls. An errcode that is not listed becomes 502 ` + "`wechat_unknown_error`" + `; on a write it proves nothing, so the operation is
reconciled.

| errcode | calls | code | what it proves | try again | note |
|---|---|---|---|---|---|
`)
	proves := map[string]string{
		"refused": "not executed", "token_rejected": "not executed", "ticket_refused": "not executed",
		"ambiguous": "nothing", "executed": "executed",
	}
	for _, r := range c.WeChat {
		calls := "all"
		if len(r.Families) > 0 {
			calls = strings.Join(r.Families, ", ")
		}
		if r.Endpoint != "" {
			calls = r.Endpoint
		}
		note := cell(r.Note)
		if len(r.Pointers) > 0 {
			note = strings.TrimSpace("`" + strings.Join(r.Pointers, "`, `") + "` " + note)
		}
		fmt.Fprintf(&b, "| %d | %s | `%s` | %s | %s | %s |\n", r.Errcode, calls, r.Code, proves[r.Class], retries[r.Retry].text, note)
	}
	for _, e := range c.Envelopes {
		fmt.Fprintf(&b, "| %s | %s | `%s` | %s | %s | |\n", e.Condition, e.Family, e.Code, proves[e.Class], retries[e.Retry].text)
	}
	return b.Bytes()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}
