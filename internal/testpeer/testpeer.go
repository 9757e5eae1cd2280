// Package testpeer is a TLS 1.3 peer whose records are in the hands of the test once the handshake is over: it can send
// what crypto/tls never sends, such as key updates, empty records and alerts of its choice.
package testpeer

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The record types (RFC 8446, Section 5.1) and what goes into them.
const (
	Alert           = 21
	Handshake       = 22
	ApplicationData = 23

	CloseNotify = 0
)

// Peer reads and writes the records of one session.
type Peer struct {
	conn    net.Conn
	in, out half
}

// half is one direction's keys (RFC 8446, Section 7.3).
type half struct {
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// Client shakes hands over conn as a client of config, which it changes.
func Client(t testing.TB, conn net.Conn, config *tls.Config) *Peer {
	t.Helper()
	config.ClientSessionCache = nil // no tickets, which crypto/tls would have read already
	return takeOver(t, conn, config, tls.Client, "CLIENT", "SERVER")
}

// Server shakes hands over conn as a server of config, which it changes.
func Server(t testing.TB, conn net.Conn, config *tls.Config) *Peer {
	t.Helper()
	config.SessionTicketsDisabled = true
	return takeOver(t, conn, config, tls.Server, "SERVER", "CLIENT")
}

func takeOver(t testing.TB, conn net.Conn, config *tls.Config, role func(net.Conn, *tls.Config) *tls.Conn, own, other string) *Peer {
	t.Helper()
	var log bytes.Buffer
	config.KeyLogWriter = &log
	config.MinVersion = tls.VersionTLS13
	c := role(conn, config)
	require.NoError(t, c.Handshake())
	require.Equal(t, tls.TLS_AES_128_GCM_SHA256, c.ConnectionState().CipherSuite)
	secrets := map[string][]byte{}
	for line := range strings.Lines(log.String()) {
		words := strings.Fields(line)
		secret, err := hex.DecodeString(words[2])
		require.NoError(t, err)
		secrets[words[0]] = secret
	}
	return &Peer{conn: conn, out: newHalf(secrets[own+"_TRAFFIC_SECRET_0"]), in: newHalf(secrets[other+"_TRAFFIC_SECRET_0"])}
}

func newHalf(secret []byte) half {
	block, err := aes.NewCipher(expand(secret, "key", 16))
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return half{secret: secret, aead: aead, iv: expand(secret, "iv", 12)}
}

// expand is HKDF-Expand-Label with an empty context (RFC 8446, Section 7.1).
func expand(secret []byte, label string, length int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = append(info, byte(len(label)))
	info = append(info, label...)
	info = append(info, 0)
	out, err := hkdf.Expand(sha256.New, secret, string(info), length)
	if err != nil {
		panic(err)
	}
	return out
}

func (h *half) nonce() []byte {
	nonce := bytes.Clone(h.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(h.seq >> (56 - 8*i))
	}
	h.seq++
	return nonce
}

// update moves on to the next keys (RFC 8446, Section 7.2).
func (h *half) update() { *h = newHalf(expand(h.secret, "traffic upd", 32)) }

// Seal makes a record without sending it.
func (p *Peer) Seal(kind byte, data []byte) []byte {
	plain := append(bytes.Clone(data), kind)
	record := []byte{ApplicationData, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(record[3:], uint16(len(plain)+p.out.aead.Overhead()))
	return p.out.aead.Seal(record, p.out.nonce(), plain, record)
}

// Write sends a record.
func (p *Peer) Write(kind byte, data []byte) error {
	_, err := p.conn.Write(p.Seal(kind, data))
	return err
}

// KeyUpdate makes the record that changes this side's keys, without sending it; request asks the other side to change its
// own (RFC 8446, Section 4.6.3).
func (p *Peer) KeyUpdate(request bool) []byte {
	message := []byte{24, 0, 0, 1, 0}
	if request {
		message[4] = 1
	}
	record := p.Seal(Handshake, message)
	p.out.update()
	return record
}

// SendKeyUpdate sends it.
func (p *Peer) SendKeyUpdate(request bool) error {
	_, err := p.conn.Write(p.KeyUpdate(request))
	return err
}

// Read returns the next record. It follows the other side's key updates.
func (p *Peer) Read() (kind byte, data []byte, err error) {
	header := make([]byte, 5)
	if _, err := io.ReadFull(p.conn, header); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(header[3:]))
	if _, err := io.ReadFull(p.conn, body); err != nil {
		return 0, nil, err
	}
	plain, err := p.in.aead.Open(nil, p.in.nonce(), body, header)
	if err != nil {
		return 0, nil, fmt.Errorf("record %d: %w", p.in.seq-1, err)
	}
	plain = bytes.TrimRight(plain, "\x00")
	kind, data = plain[len(plain)-1], plain[:len(plain)-1]
	if kind == Handshake && len(data) == 5 && data[0] == 24 {
		p.in.update()
	}
	return kind, data, nil
}
