//! Properties of what is pure: conversion, what may have changed, who may call whom, and what is kept.

mod callers;
mod changes;
mod conversion;
mod decisions;
mod kept;
