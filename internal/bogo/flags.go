package main

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// config is what the runner's flags say for one connection: each flag with its values, of which a switch has one that is empty.
type config map[string][]string

func (c config) is(name string) bool { return len(c[name]) > 0 }

// text is a flag's value, "" where it is not given.
func (c config) text(name string) string {
	if v := c[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

func (c config) number(name string) (int, error) {
	if !c.is(name) {
		return 0, nil
	}
	n, err := strconv.Atoi(c.text(name))
	if err != nil {
		return 0, fmt.Errorf("-%s: %w", name, err)
	}
	return n, nil
}

func (c config) numbers(name string) (all []int, err error) {
	for _, v := range c[name] {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, fmt.Errorf("-%s: %w", name, err)
		}
		all = append(all, n)
	}
	return all, nil
}

func (c config) bytes(name string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(c.text(name))
	if err != nil {
		return nil, fmt.Errorf("-%s: %w", name, err)
	}
	return b, nil
}

// switches are the flags without a value that the shim does something about, or rightly nothing: how BoringSSL is called
// (async, callbacks of its own) makes no difference to what must be on the wire.
const switches = `server ipv6 require-any-client-certificate verify-peer verify-fail use-custom-verify-callback
no-tls1 no-tls11 no-tls12 no-tls13 no-ticket shim-writes-first shim-shuts-down check-close-notify
write-different-record-sizes decline-alpn reject-alpn expect-session-miss expect-no-session expect-extended-master-secret
use-export-context tls-unique renegotiate-freely renegotiate-once renegotiate-ignore implicit-handshake no-op-extra-handshake
expect-hrr expect-no-hrr enable-ocsp-stapling enable-signed-cert-timestamps use-exporter-between-reads reverify-on-resume
is-handshaker-supported peek-then-read expect-no-session-id expect-session-id expect-ech-accept expect-no-ech-name-override
expect-no-ech-retry-configs use-early-callback use-ticket-callback use-old-client-cert-callback handshake-never-done
allow-unknown-alpn-protos fail-cert-callback fail-early-callback expect-secure-renegotiation expect-cipher-aes
expect-no-secure-renegotiation install-ddos-callback async expect-verify-result use-ocsp-callback set-ocsp-in-callback
decline-ocsp-callback fail-ocsp-callback permute-extensions server-preference`

// valued are those with one.
const valued = `port shim-id key-file cert-file trust-cert signing-prefs min-version max-version expect-version resume-count
host-name expect-server-name advertise-alpn expect-alpn expect-advertised-alpn select-alpn curves expect-curve-id cipher
export-keying-material export-label export-context read-size expect-ocsp-response ocsp-response signed-cert-timestamps
expect-signed-cert-timestamps expect-total-renegotiations ech-config-list ech-server-config ech-server-key ech-is-retry-config
expect-ech-retry-configs expect-peer-cert-file resumption-delay max-cert-list`

// unimplemented is what the runner is told by the exit code 89.
type unimplemented string

func (u unimplemented) Error() string { return string(u) + " is not implemented" }

// parse reads the arguments into what holds for all connections, the first, and those that resume it.
func parse(args []string) (all, initial, resumed config, err error) {
	kinds := map[string]bool{}
	for _, name := range strings.Fields(switches) {
		kinds[name] = false
	}
	for _, name := range strings.Fields(valued) {
		kinds[name] = true
	}
	all, initial, resumed = config{}, config{}, config{}
	for i := 0; i < len(args); i++ {
		name, of := strings.TrimPrefix(args[i], "-"), []config{initial, resumed}
		if rest, ok := strings.CutPrefix(name, "on-initial-"); ok {
			name, of = rest, of[:1]
		} else if rest, ok := strings.CutPrefix(name, "on-resume-"); ok {
			name, of = rest, of[1:]
		}
		if rest, ok := strings.CutPrefix(name, "on-shim-"); ok {
			name = rest
		}
		hasValue, known := kinds[name]
		if !known {
			return nil, nil, nil, unimplemented("-" + name)
		}
		value := ""
		if hasValue {
			if i++; i == len(args) {
				return nil, nil, nil, fmt.Errorf("-%s has no value", name)
			}
			value = args[i]
		}
		for _, c := range of {
			c[name] = append(c[name], value)
		}
		all[name] = append(all[name], value)
	}
	return all, initial, resumed, nil
}
