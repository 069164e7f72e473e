package httpapi

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// subkey derives the key of one purpose from the installation's key.
func (a *API) subkey(purpose string) []byte { return deriveKey(a.SecretsKey[:], purpose) }

func deriveKey(secret []byte, purpose string) []byte {
	key, err := hkdf.Key(sha256.New, secret, nil, "activerelay "+purpose, 32)
	if err != nil {
		panic(fmt.Sprintf("derive a key of 32 bytes: %v", err)) // only a length beyond 255 hashes fails
	}
	return key
}

// seal encrypts with AES-256-GCM under a 32-byte key; bound must be the same when it is opened.
func seal(key, plain, bound []byte) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return aead.Seal(nonce, nonce, plain, bound), nil
}

// open decrypts what seal made.
func open(key, sealed, bound []byte) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	if len(sealed) < aead.NonceSize() {
		return nil, errors.New("sealed text is cut")
	}
	return aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], bound)
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
