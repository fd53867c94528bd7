//! Properties of what is pure: conversion, what may have changed, and who may call whom.

mod changes;
mod conversion;
mod decisions;
