package feedback

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// KeyBytes is the length of an edge's key.
const KeyBytes = 32

const (
	version = "v1"
	// maxTokenBytes is the longest token that is looked at. The longest that
	// Seal makes is a little over 1,200.
	maxTokenBytes = 2000
)

// The errors of reading a token. Neither says what the token contains.
var (
	// ErrMalformed is a text that is no token of ours.
	ErrMalformed = errors.New("not a feedback token of this platform")
	// ErrForged is a token that was changed, or sealed under another key.
	ErrForged = errors.New("feedback token does not match its key")
)

// Sealer makes the tokens of one edge. Its methods may be called from any goroutine.
//
// Nonces are random: with one key for each edge, 2^32 messages of one edge keep
// the chance of a repeated nonce below 2^-32 (NIST SP 800-38D 8.3).
type Sealer struct {
	aead   cipher.AEAD
	prefix string // of every token
	data   []byte // additional data of the seal
	pool   sync.Pool
}

// scratch is the memory in which a token is made.
type scratch struct{ plain, sealed, token []byte }

// NewSealer prepares the key of an edge, which costs more than a token does.
func NewSealer(key [KeyBytes]byte, edge string) (*Sealer, error) {
	if !isEdgeID(edge) {
		return nil, fmt.Errorf("seal feedback tokens: %q is no edge id", edge)
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, fmt.Errorf("seal feedback tokens: %w", err)
	}
	s := &Sealer{aead: aead, prefix: version + ":" + edge + ":", data: additionalData(edge)}
	s.pool.New = func() any { return new(scratch) }
	return s, nil
}

// AppendField appends the header field that carries the token of one message,
// with its line ends.
func (s *Sealer) AppendField(dst []byte, c *Claims) ([]byte, error) {
	m := s.pool.Get().(*scratch)
	defer s.pool.Put(m)
	if err := s.seal(m, c); err != nil {
		return dst, err
	}
	return appendField(dst, m.token), nil
}

// seal makes a token in the memory given.
func (s *Sealer) seal(m *scratch, c *Claims) (err error) {
	if m.plain, err = c.appendTo(m.plain[:0]); err != nil {
		return fmt.Errorf("seal feedback token: %w", err)
	}
	m.sealed = s.aead.Seal(m.sealed[:0], nil, m.plain, s.data)
	m.token = base64.RawURLEncoding.AppendEncode(append(m.token[:0], s.prefix...), m.sealed)
	return nil
}

// Seal makes one token under the key of the edge that relays the message. A
// [Sealer] makes many.
func Seal(key [KeyBytes]byte, edge string, c Claims) (string, error) {
	s, err := NewSealer(key, edge)
	if err != nil {
		return "", err
	}
	var m scratch
	if err := s.seal(&m, &c); err != nil {
		return "", err
	}
	return string(m.token), nil
}

// Edge returns the id of the edge that a token claims to come from. Nothing is
// proved before Open has succeeded under that edge's key.
func Edge(token string) (string, error) {
	edge, _, err := split(token)
	return edge, err
}

// Open returns the claims of a token, or ErrMalformed or ErrForged.
func Open(key [KeyBytes]byte, token string) (Claims, error) {
	edge, sealed, err := split(token)
	if err != nil {
		return Claims{}, err
	}
	aead, err := newAEAD(key)
	if err != nil {
		return Claims{}, fmt.Errorf("open feedback token: %w", err)
	}
	plain, err := aead.Open(nil, nil, sealed, additionalData(edge))
	if err != nil {
		return Claims{}, ErrForged
	}
	return decode(plain)
}

func newAEAD(key [KeyBytes]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func additionalData(edge string) []byte { return []byte(version + ":" + edge) }

func split(token string) (edge string, sealed []byte, err error) {
	if len(token) > maxTokenBytes {
		return "", nil, ErrMalformed
	}
	token = unfold(token)
	parts := strings.Split(token, ":")
	if len(parts) != 3 || parts[0] != version || !isEdgeID(parts[1]) {
		return "", nil, ErrMalformed
	}
	// Strict: without it the unused bits of the last character would give one
	// message several tokens.
	sealed, err = base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(sealed) == 0 {
		return "", nil, ErrMalformed
	}
	return parts[1], sealed, nil
}

// isEdgeID admits the characters of our ids, which are all atext.
func isEdgeID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
